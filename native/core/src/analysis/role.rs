//! What a module is to the system.

use hot_patch_beam::Module;

macro_rules! roles {
    ($($variant:ident, $name:literal, $what:literal;)+) => {
        /// What a module is to the system; it may be several.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $(#[doc = $what] $variant,)+
        }

        impl Role {
            /// Every role.
            pub const ALL: &'static [Role] = &[$(Role::$variant,)+];

            /// Its name in `snake_case`.
            pub fn name(self) -> &'static str {
                match self { $(Role::$variant => $name,)+ }
            }
        }
    };
}

roles! {
    Server, "gen_server", "A callback module of gen_server.";
    Statem, "gen_statem", "A callback module of gen_statem.";
    Event, "gen_event", "A handler of gen_event.";
    Supervisor, "supervisor", "A callback module of supervisor.";
    LiveView, "live_view", "A view of Phoenix LiveView: each of its sessions is a process.";
    Channel, "channel", "A channel of Phoenix: each who has joined is a process.";
    LiveComponent, "live_component", "A component of Phoenix LiveView, whose state is in the process of a view.";
    Components, "components", "Function components of Phoenix, layouts among them.";
    Special, "special_process", "It answers system messages itself.";
    Application, "application", "A callback module of an application.";
    Protocol, "protocol", "A protocol.";
    Implementation, "implementation", "An implementation of a protocol.";
    Nif, "nif", "It loads a native library.";
    OnLoad, "on_load", "It runs code when it is loaded.";
    Behaviour, "behaviour", "It defines a behaviour.";
    Macros, "macros", "It offers macros.";
    MacrosOnly, "macros_only", "It offers nothing but macros.";
    Struct, "struct", "It defines a struct.";
    Pure, "pure", "Functions, and nothing of the above but a struct.";
}

impl Role {
    /// Whether processes have such a module as their callback module, and states that it makes.
    pub fn has_states(self) -> bool {
        self.has_processes() && self != Role::Supervisor
    }

    /// Whether processes have such a module as their callback module.
    pub fn has_processes(self) -> bool {
        matches!(self, Role::Server | Role::Statem | Role::Event | Role::Supervisor | Role::Special)
            || self.is_hosted()
    }

    /// Whether its processes run in a server of Phoenix, which keeps what is theirs in its own state.
    pub fn is_hosted(self) -> bool {
        matches!(self, Role::LiveView | Role::Channel)
    }
}

const SUPERVISORS: [&str; 3] = ["supervisor", "Elixir.Supervisor", "Elixir.DynamicSupervisor"];

/// The roles of a module, by its attributes and by what it offers.
pub(super) fn roles(module: &Module) -> Vec<Role> {
    let is = |names: &[&str]| module.behaviours.iter().any(|of| names.contains(&of.as_str()));
    let has = |function: &str, arity: u8| module.offers(function, arity);
    let event = is(&["gen_event"]) || (has("handle_event", 2) && has("handle_call", 2));
    let hosted = is(&["Elixir.Phoenix.LiveView"]) || is(&["Elixir.Phoenix.Channel"]);
    let component = is(&["Elixir.Phoenix.LiveComponent"]);
    // What has callbacks of a server, and is none.
    let event = event && !hosted;
    let server = !hosted && has("handle_call", 3);
    let all = [
        (Role::Server, is(&["gen_server", "Elixir.GenServer"]) || server),
        (Role::Statem, is(&["gen_statem"]) || has("callback_mode", 0)),
        (Role::Event, event && has("init", 1)),
        (Role::Supervisor, is(&SUPERVISORS)),
        (Role::LiveView, is(&["Elixir.Phoenix.LiveView"])),
        (Role::Channel, is(&["Elixir.Phoenix.Channel"])),
        (Role::LiveComponent, component),
        (Role::Components, has("__components__", 0) && !hosted && !component),
        (Role::Special, has("system_continue", 3)),
        (Role::Application, is(&["application", "Elixir.Application"])),
        (Role::Protocol, has("__protocol__", 1)),
        (Role::Implementation, has("__impl__", 1)),
        (Role::Nif, module.load_nif),
        (Role::OnLoad, module.on_load),
        (Role::Behaviour, has("behaviour_info", 1)),
        (Role::Macros, macros(module).next().is_some()),
        (Role::MacrosOnly, macros_only(module)),
        (Role::Struct, has("__struct__", 0)),
    ];
    let mut roles: Vec<Role> =
        all.into_iter().filter(|(_, is)| *is).map(|(role, _)| role).collect();
    if roles.iter().all(|role| *role == Role::Struct) {
        roles.push(Role::Pure);
    }
    roles
}

/// The macros a module offers, as name and arity of the functions behind them.
pub(super) fn macros(module: &Module) -> impl Iterator<Item = (&str, u8)> {
    let exports = module.exports().filter(|export| export.function.starts_with("MACRO-"));
    exports.map(|export| (export.function, export.arity))
}

fn macros_only(module: &Module) -> bool {
    let made = ["module_info", "__info__"];
    let mut written = module.exports().filter(|export| !made.contains(&export.function));
    macros(module).next().is_some() && written.all(|export| export.function.starts_with("MACRO-"))
}
