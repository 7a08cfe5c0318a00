//! LiveViews, components and channels of Phoenix, by stand-ins that are compiled as its `use` has them compiled.

use hot_patch_core::analysis::{Conversion, Role};

use crate::support::compiled::{self, Compiled, elixir, erlang};
use crate::{compare, finding, found, module};

const VIEW: &str = "Elixir.Phoenix.LiveView";
const COMPONENT: &str = "Elixir.Phoenix.LiveComponent";
const CHANNEL: &str = "Elixir.Phoenix.Channel";

/// A module with a behaviour of Phoenix, as a template of HEEx comes out that shows these assigns, and which makes
/// those.
fn built(behaviour: &str, shows: &[&str], makes: &[&str], more: &str) -> Compiled {
    let shown: Vec<String> = shows
        .iter()
        .map(|name| {
            format!(
                "case 'Elixir.Phoenix.LiveView.Engine':'changed_assign?'(C, {name}) of
                     true -> 'Elixir.Phoenix.LiveView.Engine':live_to_iodata(maps:get({name}, A));
                     false -> nil
                 end"
            )
        })
        .collect();
    // As a view may have it, and is no server for that.
    let (exported, call) = match behaviour {
        COMPONENT => ("", ""),
        _ => (", handle_call/3", "handle_call(_, _, S) -> {noreply, S}."),
    };
    let made: Vec<String> = makes.iter().map(|name| format!("{{{name}, 1}}")).collect();
    erlang(&[(
        "shown",
        &format!(
            "-behaviour('{behaviour}').
-export([render/1, mount/3{exported}{}]).
render(A) -> fun(C) -> [{}] end.
mount(_, _, S) -> {{ok, 'Elixir.Phoenix.Component':assign(S, [{}])}}.
{call}
{more}",
            if more.contains("code_change(") { ", code_change/3" } else { "" },
            shown.join(", "),
            made.join(", ")
        ),
    )])
}

#[test]
fn they_are_none_of_otp_and_never_pure() {
    if !compiled::has("erlc") {
        return;
    }
    let roles = |behaviour: &str| {
        let old = built(behaviour, &["a"], &["a"], "");
        let analysis = compare(&old, &built(behaviour, &["a"], &["a", "b"], ""));
        assert!(found(&analysis).is_empty(), "{:?}", analysis.findings);
        module(&analysis, "shown").roles.clone()
    };
    assert_eq!(roles(VIEW), [Role::LiveView]);
    assert_eq!(roles(CHANNEL), [Role::Channel]);
    assert_eq!(roles(COMPONENT), [Role::LiveComponent]);
    let parts = |n: u32| {
        erlang(&[(
            "parts",
            &format!(
                "-export([f/0, '__components__'/0]).\nf() -> {n}.\n'__components__'() -> #{{}}."
            ),
        )])
    };
    assert_eq!(module(&compare(&parts(1), &parts(2)), "parts").roles, [Role::Components]);
}

#[test]
fn assigns_that_sessions_of_before_do_not_have() {
    if !compiled::has("erlc") {
        return;
    }
    let converts =
        "code_change(Vsn, S, _) -> {ok, 'Elixir.Phoenix.Component':assign(S, down, Vsn)}.";
    for behaviour in [VIEW, COMPONENT] {
        let old = built(behaviour, &["count"], &["count", "spare"], "");
        let new = built(behaviour, &["count", "total", "spare", "flash"], &["total"], "");
        let analysis = compare(&old, &new);
        let finding = finding(&analysis, "assign_not_there");
        assert_eq!(
            (finding.module.as_str(), finding.items.as_slice()),
            ("shown", &["total".to_owned()][..])
        );
        assert!(finding.message.contains("@total"), "{}", finding.message);
        assert_eq!(found(&analysis).len(), 1);

        // What shows less than before is no matter.
        assert!(found(&compare(&new, &built(behaviour, &["count"], &["count"], ""))).is_empty());
        // A view converts its sessions; a component's code_change nobody calls.
        let converted = built(behaviour, &["total"], &["total"], converts);
        let analysis = compare(&old, &converted);
        assert_eq!(module(&analysis, "shown").code_change, Conversion::Touched);
        assert_eq!(
            found(&analysis).iter().any(|(name, _)| *name == "assign_not_there"),
            behaviour == COMPONENT
        );
    }
}

#[test]
fn assigns_that_functions_read_and_sessions_of_before_do_not_have() {
    if !compiled::has("erlc") {
        return;
    }
    let module = |behaviour: &str, body: &str| {
        let behaviour = behaviour.trim_start_matches("Elixir.");
        elixir(&format!(
            "defmodule Shown do
               @behaviour {behaviour}
               def mount(_, _, socket), do: {{:ok, socket.assigns.mounted, socket}}
               {body}
             end"
        ))
    };
    let missing = |behaviour: &str, body: &str| {
        let old = module(behaviour, "def f(socket), do: socket.assigns.count");
        let analysis = compare(&old, &module(behaviour, body));
        let found = analysis.findings.iter().find(|one| one.kind.name() == "assign_not_there");
        found.map(|one| one.items.clone()).unwrap_or_default()
    };
    for behaviour in [VIEW, COMPONENT, CHANNEL] {
        for body in [
            // Two of them, one of which is held while others are called.
            "def f(socket), do: {socket.assigns.count + socket.assigns.step, socket}",
            "def f(socket) do
               assigns = socket.assigns
               IO.inspect(socket)
               assigns.step
             end",
            "def f(%{assigns: %{step: step}}), do: step",
        ] {
            assert_eq!(missing(behaviour, body), ["step"], "{behaviour}: {body}");
        }
    }
    for body in [
        // One that it makes itself; one of another map; and what stands below an assign.
        "def f(socket), do: Phoenix.Component.assign(socket, :step, 1).assigns.step",
        "def f(socket), do: socket.private.step",
        "def f(socket), do: socket.assigns.count.step",
        "def f(socket), do: Map.get(socket.assigns, :step)",
    ] {
        assert!(missing(VIEW, body).is_empty(), "{body}");
    }
}

#[test]
fn assigns_that_another_module_makes_are_there() {
    if !compiled::has("erlc") {
        return;
    }
    let hook = |name: &str, maker: &str| {
        elixir(&format!("defmodule {name} do def on_mount(s), do: {maker}.assign(s, user: 1) end"))
    };
    let old = built(VIEW, &["count"], &["count"], "");
    let new = built(VIEW, &["count", "user"], &["count"], "");
    // Of the library's own modules it is no sign that they name it.
    for (name, maker, there) in [
        ("Hook", "Phoenix.Component", true),
        ("Hook", "Keyword", false),
        // Of the library's own modules it is no sign that they name it.
        ("Phoenix.LiveView.Engine", "Phoenix.Component", false),
    ] {
        let hook = hook(name, maker);
        let both = |one: &Compiled| one.iter().chain(&hook).cloned().collect::<Compiled>();
        let analysis = compare(&both(&old), &both(&new));
        let found = analysis.findings.iter().any(|one| one.kind.name() == "assign_not_there");
        assert_eq!(found, !there, "{name} by {maker}");
    }
}

#[test]
fn callbacks_that_are_all_optional_are_missed_by_nobody() {
    if !compiled::has("erlc") {
        return;
    }
    let build = |optional: &str, version: u32| {
        let behaviour = format!(
            "-callback f() -> ok.\n-callback g(term()) -> ok.\n-optional_callbacks([{optional}])."
        );
        let user = format!("-behaviour(wants).\n-export([v/0]).\nv() -> {version}.");
        erlang(&[("wants", behaviour.as_str()), ("user_", user.as_str())])
    };
    // The compiler makes one list of both where they are alike.
    for (optional, missing) in [("f/0, g/1", &[][..]), ("g/1", &["f/0"][..]), ("f/0", &["g/1"][..])]
    {
        let mut old = build(optional, 1);
        old.retain(|(name, _)| name == "wants");
        let analysis = compare(&old, &build(optional, 2));
        let found = analysis.findings.iter().filter(|one| one.kind.name() == "callback_missing");
        let items: Vec<String> = found.flat_map(|one| one.items.clone()).collect();
        assert_eq!(items, missing, "{optional}");
    }
}
