//! Calls, cycles, kinds of modules, supervisors, protocols, macros.

use hot_patch_core::analysis::{self, Kind, Pause, Request, Role, Severity};

use crate::support::compiled::{self, Compiled, elixir, erlang};
use crate::{compare, finding, found, module};

#[test]
fn names_are_unique_and_explained() {
    for (index, kind) in Kind::ALL.iter().enumerate() {
        let name = kind.name();
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(Kind::ALL.iter().skip(index + 1).all(|other| other.name() != name), "{name}");
        assert!(kind.what().ends_with('.') && kind.next_step().ends_with('.'), "{name}");
    }
    let severities: Vec<_> = Severity::ALL.iter().map(|severity| severity.name()).collect();
    assert_eq!(severities, ["info", "warning", "danger"]);
}

#[test]
fn callees_come_before_callers_and_cycles_have_names() {
    if !compiled::has("erlc") {
        return;
    }
    let text = |n: u32, calls: &str| format!("-export([f/0]).\nf() -> {{{n}, [{calls}]}}.");
    let build = |n: u32| {
        let texts = [
            ("top", text(n, "middle:f(), ring1:f()")),
            ("middle", text(n, "fun bottom:f/0, lists:seq(1, 2)")),
            ("bottom", text(n, "")),
            ("ring1", text(n, "ring2:f()")),
            ("ring2", text(n, "ring3:f(), bottom:f()")),
            ("ring3", text(n, "ring1:f()")),
        ];
        erlang(&texts.each_ref().map(|(name, text)| (*name, text.as_str())))
    };
    let analysis = compare(&build(1), &build(2));
    let place = |name: &str| {
        analysis.order.iter().position(|group| group.iter().any(|one| one == name)).unwrap()
    };
    assert!(place("bottom") < place("middle") && place("middle") < place("top"));
    assert!(place("bottom") < place("ring1") && place("ring1") < place("top"));
    let cycle = finding(&analysis, "cycle");
    assert_eq!(cycle.items, ["ring1", "ring2", "ring3"]);
    assert_eq!(found(&analysis).len(), 1);
    assert_eq!(analysis.cycles().count(), 1);
}

#[test]
fn functions_and_modules_that_go_while_others_call_them() {
    if !compiled::has("erlc") {
        return;
    }
    let user = ("user_", "-export([a/0, b/0]).\na() -> lib:gone(1).\nb() -> lib:kept(old:f()).");
    let old = erlang(&[
        (
            "lib",
            "-export([gone/1, kept/1, unused/0]).\ngone(X) -> X.\nkept(X) -> X.\nunused() -> 1.",
        ),
        ("old", "-export([f/0]).\nf() -> 1."),
        user,
    ]);
    let new =
        erlang(&[("lib", "-export([kept/1]).\nkept(X) -> {X, user_:c(), nowhere:f()}."), user]);
    let analysis = compare(&old, &new);
    let expected = [
        ("export_removed_but_called", "lib"),
        ("module_deleted_but_called", "old"),
        ("missing_function_called", "lib"),
    ];
    assert_eq!(found(&analysis), expected);
    assert_eq!(finding(&analysis, expected[0].0).items, ["gone/1", "user_.a/0"]);
    assert_eq!(finding(&analysis, expected[1].0).items, ["user_.b/0"]);
    assert_eq!(finding(&analysis, expected[2].0).items, ["user_.c/0"]);
    let unknown = finding(&analysis, "unknown_module_called");
    assert_eq!(
        (unknown.module.as_str(), unknown.items.as_slice()),
        ("lib", &["nowhere".to_owned()][..])
    );
    assert_eq!(module(&analysis, "lib").callers, ["user_"]);
    assert_eq!(analysis.worst(), Some(Severity::Danger));

    // With the callers in the change, nothing is left to say.
    let user = ("user_", "-export([a/0]).\na() -> lib:kept(1).");
    let together = erlang(&[("lib", "-export([kept/1]).\nkept(X) -> {X}."), user]);
    assert!(found(&compare(&old, &together)).is_empty());
}

/// A supervisor with these children.
fn supervisor(children: &str, more: &str) -> Compiled {
    elixir(&format!(
        r#"
defmodule W1 do
  use GenServer
  def init(x), do: {{:ok, x}}
end
defmodule W2 do
  use GenServer
  def init(x), do: {{:ok, x}}
end
defmodule Sup do
  use Supervisor
  def init(_), do: Supervisor.init(children(), strategy: :one_for_one)
  defp children, do: [{children}]
  {more}
end
defmodule App do
  use Application
  def start(_, _), do: {{:ok, self(), {}}}
end
"#,
        children.len()
    ))
}

#[test]
fn a_supervisor_that_gets_other_children() {
    if !compiled::has("elixirc") {
        return;
    }
    let old = supervisor("{W1, 1}", "");
    let analysis = compare(&old, &supervisor("{W2, 1}, {W1, 1}", ""));
    let init = finding(&analysis, "supervisor_init_changed");
    assert_eq!(init.items, ["+W2"]);
    assert!(init.message.contains("not started by itself"), "{}", init.message);
    assert_eq!(module(&analysis, "Elixir.Sup").pause, Pause::Supervisor);
    assert_eq!(finding(&analysis, "application_start_changed").module, "Elixir.App");
    // Other functions of it do not matter.
    let other = compare(&old, &supervisor("{W1, 1}", "def f, do: 1"));
    assert!(found(&other).is_empty(), "{:?}", other.findings);
}

#[test]
fn kinds_of_modules() {
    if !compiled::has("erlc") || !compiled::has("elixirc") {
        return;
    }
    let erlang = erlang(&[
        ("nif", "-export([f/0]).\n-on_load(f/0).\nf() -> erlang:load_nif(\"x\", 0)."),
        ("loads", "-export([f/0]).\n-on_load(f/0).\nf() -> ok."),
        (
            "fsm",
            "-behaviour(gen_statem).\n-export([init/1, callback_mode/0]).\ninit(_) -> {ok, a, b}.\ncallback_mode() -> state_functions.",
        ),
        (
            "ev",
            "-behaviour(gen_event).\n-export([init/1, handle_event/2, handle_call/2]).\ninit(_) -> {ok, a}.\nhandle_event(_, S) -> {ok, S}.\nhandle_call(_, S) -> {ok, S, S}.",
        ),
        (
            "spec",
            "-export([system_continue/3, system_terminate/4, system_code_change/4]).\nsystem_continue(_, _, S) -> S.\nsystem_terminate(_, _, _, _) -> ok.\nsystem_code_change(S, _, _, _) -> {ok, S}.",
        ),
        ("beh", "-export([]).\n-callback f() -> ok."),
        ("plain", "-export([f/0]).\nf() -> 1."),
    ]);
    let elixir = elixir(
        "defmodule Mac do\n  defmacro m(x), do: x\nend
defmodule St do\n  defstruct [:a]\nend
defprotocol Pr do\n  def p(x)\nend
defimpl Pr, for: St do\n  def p(x), do: x\nend",
    );
    let all: Vec<&[u8]> = erlang.iter().chain(&elixir).map(|(_, file)| file.as_slice()).collect();
    let analysis = analysis::analyse(&Request { after: &all, ..Request::default() });
    let expected: [(&str, &[Role]); 11] = [
        ("nif", &[Role::Nif, Role::OnLoad]),
        ("loads", &[Role::OnLoad]),
        ("fsm", &[Role::Statem]),
        ("ev", &[Role::Event]),
        ("spec", &[Role::Special]),
        ("beh", &[Role::Behaviour]),
        ("plain", &[Role::Pure]),
        ("Elixir.Mac", &[Role::Macros, Role::MacrosOnly]),
        ("Elixir.St", &[Role::Struct, Role::Pure]),
        ("Elixir.Pr", &[Role::Protocol, Role::Behaviour]),
        ("Elixir.Pr.St", &[Role::Implementation]),
    ];
    for (name, roles) in expected {
        assert_eq!(module(&analysis, name).roles, roles, "{name}");
    }
    assert_eq!(found(&analysis), [("nif_module", "nif"), ("on_load", "loads")]);
}

#[test]
fn another_kind_of_process_and_another_mode() {
    if !compiled::has("erlc") {
        return;
    }
    let statem = |mode: &str| {
        erlang(&[(
            "p",
            &format!(
                "-behaviour(gen_statem).\n-export([init/1, callback_mode/0, handle_event/4, code_change/4]).\ninit(_) -> {{ok, a, #{{}}}}.\ncallback_mode() -> {mode}.\nhandle_event(_, _, _, _) -> keep_state_and_data.\ncode_change(_, S, D, _) -> {{ok, S, D}}."
            ),
        )])
    };
    let server = erlang(&[(
        "p",
        "-behaviour(gen_server).\n-export([init/1, handle_call/3, handle_cast/2]).\ninit(_) -> {ok, #{}}.\nhandle_call(_, _, S) -> {reply, S, S}.\nhandle_cast(_, S) -> {noreply, S}.",
    )]);
    let mode = compare(&statem("handle_event_function"), &statem("state_functions"));
    assert_eq!(found(&mode), [("callback_mode_changed", "p")]);
    let role = compare(&server, &statem("handle_event_function"));
    assert_eq!(finding(&role, "role_changed").items, ["gen_server", "gen_statem"]);
}

#[test]
fn states_without_a_function() {
    if !compiled::has("erlc") {
        return;
    }
    let statem = |exports: &str, more: &str| {
        erlang(&[(
            "p",
            &format!(
                "-behaviour(gen_statem).\n-export([init/1, callback_mode/0, idle/3, terminate/3{exports}]).\ncallback_mode() -> state_functions.\ninit(_) -> {{ok, idle, #{{}}}}.\nidle(_, _, _) -> keep_state_and_data.\nterminate(_, _, _) -> ok.\n{more}"
            ),
        )])
    };
    let old = statem(
        ", busy/3, api/3",
        "busy(_, _, D) -> {next_state, idle, D}.\napi(_, _, _) -> {next_state, busy, #{}}.",
    );
    let gone = compare(&old, &statem("", ""));
    let gone = finding(&gone, "state_function_gone");
    // Into a state of the name api nobody goes.
    assert_eq!(
        (gone.items.as_slice(), gone.severity()),
        (["busy/3".to_owned()].as_slice(), Severity::Danger)
    );
    assert!(gone.message.starts_with("p no longer has busy/3"), "{}", gone.message);
    let led = statem(
        ", code_change/4",
        "code_change(_, busy, D, _) -> {ok, idle, D};\ncode_change(_, S, D, _) -> {ok, S, D}.",
    );
    assert!(found(&compare(&old, &led)).iter().all(|(name, _)| *name != "state_function_gone"));
    // The way back is a change like any other.
    assert!(found(&compare(&statem("", ""), &old)).is_empty());
}

#[test]
fn functions_by_which_supervisors_start_their_children() {
    if !compiled::has("erlc") {
        return;
    }
    let build = |arguments: &str, given: &str, supervisor: u32| {
        let arity = arguments.split(',').count();
        let worker = format!(
            "-behaviour(gen_server).\n-export([start_link/{arity}, init/1, handle_call/3, handle_cast/2]).\nstart_link({arguments}) -> gen_server:start_link(worker, [], []).\ninit(_) -> {{ok, #{{}}}}.\nhandle_call(_, _, S) -> {{reply, S, S}}.\nhandle_cast(_, S) -> {{noreply, S}}."
        );
        let top = format!(
            "-behaviour(supervisor).\n-export([init/1, f/0]).\ninit(_) -> {{ok, {{#{{}}, [#{{id => w, start => {{worker, start_link, [{given}]}}}}]}}}}.\nf() -> {supervisor}."
        );
        erlang(&[("worker", worker.as_str()), ("top", top.as_str())])
    };
    let old = build("_", "1", 1);
    // The supervisor is as before: what it has in mind is nowhere any more.
    let gone = compare(&old, &build("_, _", "1", 1));
    assert_eq!(finding(&gone, "start_function_gone").items, ["start_link/1"]);
    assert_eq!(finding(&gone, "start_function_gone").severity(), Severity::Danger);
    let with_it = compare(&old, &build("_, _", "1, 2", 1));
    assert!(found(&with_it).iter().all(|(name, _)| *name != "start_function_gone"));
}

#[test]
fn macros_and_who_was_compiled_with_them() {
    if !compiled::has("elixirc") {
        return;
    }
    let build = |twice: &str| {
        elixir(&format!(
            "defmodule Mac do
  defmacro twice(x), do: quote(do: {twice})
  defmacro same(x), do: x
  def help(x), do: x
end
defmodule User do
  require Mac
  def f(x), do: Mac.twice(x)
end
defmodule Caller do\n  def f(x), do: Mac.help(x)\nend"
        ))
    };
    let old = build("unquote(x) * 2");
    let new = build("unquote(x) + unquote(x)");
    let files: Vec<&[u8]> = old.iter().map(|(_, file)| file.as_slice()).collect();
    let mac: Vec<&[u8]> = new
        .iter()
        .filter(|(name, _)| name == "Elixir.Mac")
        .map(|(_, file)| file.as_slice())
        .collect();
    let request = Request { before: &files, after: &mac, ..Request::default() };
    let guessed = analysis::analyse(&request);
    assert_eq!(finding(&guessed, "macro_changed").items, ["twice/1", "Caller"]);
    let compiled_with = [("Elixir.User", "Elixir.Mac")];
    let told = analysis::analyse(&Request { compiled_with: &compiled_with, ..request });
    assert_eq!(finding(&told, "macro_changed").items, ["twice/1", "User"]);
    let all: Vec<&[u8]> = new.iter().map(|(_, file)| file.as_slice()).collect();
    let request = Request { after: &all, compiled_with: &compiled_with, ..request };
    assert!(found(&analysis::analyse(&request)).is_empty());
}

#[test]
fn callbacks_that_a_behaviour_wants() {
    if !compiled::has("erlc") {
        return;
    }
    let behaviour = |more: &str| format!("-callback f(any()) -> ok.\n{more}");
    let implementer = "-behaviour(beh).\n-export([f/1]).\nf(_) -> ok.";
    let build = |more: &str| erlang(&[("beh", &behaviour(more)), ("impl", implementer)]);
    let old = build("");
    let analysis = compare(&old, &build("-callback g() -> ok."));
    assert_eq!(found(&analysis), [("callback_missing", "impl")]);
    assert_eq!(analysis.findings[0].items, ["g/0"]);
    let optional = build("-callback g() -> ok.\n-optional_callbacks([g/0]).");
    assert!(found(&compare(&old, &optional)).is_empty());
}
