//! States that change their form, and what converts them.

use hot_patch_core::analysis::Builds;
use hot_patch_core::analysis::{self, Conversion, Pause, Request};
use hot_patch_core::appup::Appup;

use crate::support::compiled::{self, Compiled, elixir, erlang};
use crate::{compare, finding, found, module};

/// A gen_server whose init and code_change are given.
fn server(init: &str, code_change: &str) -> Compiled {
    let exports = if code_change.is_empty() { "" } else { ", code_change/3" };
    erlang(&[(
        "srv",
        &format!(
            "-behaviour(gen_server).
-export([init/1, handle_call/3, handle_cast/2{exports}]).
-record(state, {{a, b = 2}}).
-record(wide, {{a, b, c}}).
{init}
handle_call(_, _, S) -> {{reply, S, S}}.
handle_cast(_, S) -> {{noreply, S}}.
{code_change}
use() -> [#state{{}}, #wide{{}}, ?MODULE:use()]."
        ),
    )])
}

const STATE: &str = "state_changed_without_code_change";

#[test]
fn the_forms_of_states_that_init_makes() {
    if !compiled::has("erlc") {
        return;
    }
    let same = "code_change(_, S, _) -> {ok, S}.";
    let old = server("init(A) -> {ok, #state{a = A}}.", same);
    let forms = [
        ("init(A) -> {ok, #wide{a = A}}.", "{wide, _, _, _}"),
        ("init(A) -> process_flag(trap_exit, true), {ok, #{a => A, b => 1}}.", "%{a, b}"),
        (
            "init(A) -> {ok, new(A), hibernate}.\nnew(A) -> #wide{a = A, c = self()}.",
            "{wide, _, _, _}",
        ),
        (
            "init(A) -> case A of 1 -> S = #wide{a = self()}; _ -> S = #wide{b = A} end, new(S).
new(S) -> io:format(\"x\"), {ok, S}.",
            "",
        ),
        (
            "init(A) -> R = case A of 1 -> #wide{a = self()}; _ -> #wide{b = A} end, {ok, R}.",
            "{wide, _, _, _}",
        ),
        ("init(A) when A > 1 -> M = #{x => 1}, {ok, M#{y => A}};\ninit(_) -> ignore.", "%{x, y}"),
    ];
    for (init, form) in forms {
        let analysis = compare(&old, &server(init, same));
        if form.is_empty() {
            assert_eq!(finding(&analysis, "state_not_seen").module, "srv");
            continue;
        }
        let state = finding(&analysis, STATE);
        assert_eq!(state.items, ["{state, _, _}", form], "{init}");
        assert!(state.message.contains("its code_change leaves the state as it is"));
        assert!(!analysis.stateless);
    }
}

/// Registers that an instruction sets without naming them: what was in them is not what is returned.
#[test]
fn what_is_caught_is_not_what_was_there_before() {
    if !compiled::has("erlc") {
        return;
    }
    let forms = [
        "init(A) -> X = {ok, TUPLE}, try ext:f(A, X) catch throw:R -> R end.",
        "init(A) -> X = {ok, TUPLE}, try ext:f(X, A) catch throw:R -> R end.",
        "init(A) -> X = {ok, TUPLE}, try ext:f(A, X, X) catch _:R:S -> ext:g(S), R end.",
        "init(A) -> X = {ok, TUPLE}, try ext:f(X, X, X) catch _:_:S -> S end.",
        "init(A) -> X = {ok, TUPLE}, (catch ext:f(X, A)).",
        "init(A) -> X = {ok, TUPLE}, try ext:f(A, X) of _ -> ok after ext:g(X) end.",
    ];
    for form in forms {
        let old = server(&form.replace("TUPLE", "{A}"), "");
        let new = server(&form.replace("TUPLE", "{A, 1}"), "");
        let analysis = compare(&old, &new);
        assert_eq!(found(&analysis), [("state_not_seen", "srv")], "{form}");
    }
    // What is known in the stack stays known.
    let kept = "init(A) -> X = {ok, TUPLE}, try ext:f(A) catch throw:_ -> X end.";
    let old = server(&kept.replace("TUPLE", "{A}"), "");
    let analysis = compare(&old, &server(&kept.replace("TUPLE", "{A, 1}"), ""));
    assert_eq!(finding(&analysis, STATE).items, ["{_}", "{_, _}"]);
}

/// What each kind of process has to give back to keep its state.
#[test]
fn only_the_state_itself_given_back_is_no_conversion() {
    if !compiled::has("erlc") {
        return;
    }
    let module_of = |convert: &str, arity: u32, tag: u32| {
        erlang(&[(
            "srv",
            &format!(
                "-export([init/1, handle_call/3, {convert}, tag/0]).\ntag() -> {tag}.
init(A) -> {{ok, A}}.\nhandle_call(_, _, S) -> {{reply, S, S}}.\n{}",
                match arity {
                    0 => "code_change(_, S, _) -> {ok, S}.",
                    1 => "code_change(_, _, E) -> {ok, E}.",
                    2 => "code_change(_, S, E) -> {ok, S, E}.",
                    3 => "code_change(_, S, D, _) -> {ok, S, D}.",
                    4 => "code_change(_, S, D, _) -> {ok, D, S}.",
                    5 => "code_change(_, S, _, _) -> {ok, S}.",
                    6 => "system_code_change(M, _, _, _) -> {ok, M}.",
                    7 => "system_code_change(_, M, _, _) -> {ok, M}.",
                    _ => "code_change(_, S, _) -> ext:f(), {ok, S}.",
                }
            ),
        )])
    };
    let [three, four, system] = ["code_change/3", "code_change/4", "system_code_change/4"];
    let cases = [
        (three, 0, Conversion::Keeps),
        (three, 1, Conversion::Untouched),
        (three, 2, Conversion::Untouched),
        (four, 3, Conversion::Keeps),
        (four, 4, Conversion::Untouched),
        (four, 5, Conversion::Untouched),
        (system, 6, Conversion::Keeps),
        (system, 7, Conversion::Untouched),
        (three, 8, Conversion::Untouched),
    ];
    for (convert, text, expected) in cases {
        let analysis = compare(&module_of(convert, text, 1), &module_of(convert, text, 2));
        assert_eq!(module(&analysis, "srv").code_change, expected, "{convert} {text}");
        let pause = if expected == Conversion::Keeps { Pause::None } else { Pause::State };
        assert_eq!(module(&analysis, "srv").pause, pause, "{convert} {text}");
    }
}

#[test]
fn code_change_absent_untouched_and_touched() {
    if !compiled::has("erlc") {
        return;
    }
    let init = |record: &str| format!("init(A) -> {{ok, #{record}{{a = A}}}}.");
    let with = |record: &str, code_change: &str| server(&init(record), code_change);
    let absent = compare(&with("state", ""), &with("wide", ""));
    assert!(finding(&absent, STATE).message.contains("it has no code_change"));
    assert_eq!(module(&absent, "srv").pause, Pause::None);

    let helper = |body: &str| format!("code_change(_, S, _) -> up(S).\nup(S) -> {body}.");
    // It is called all the same: what it gives need not show in its text.
    let untouched = compare(&with("state", &helper("{ok, S}")), &with("wide", &helper("{ok, S}")));
    let state = finding(&untouched, STATE);
    assert_eq!(state.severity().name(), "danger");
    assert!(state.message.contains("its code_change, which is called, is as it was before"));
    let srv = module(&untouched, "srv");
    assert_eq!((srv.code_change, srv.pause), (Conversion::Untouched, Pause::State));
    assert!(srv.state_moves && !untouched.stateless);
    // What it calls has changed, so it has.
    let touched = compare(
        &with("state", &helper("{ok, S}")),
        &with("wide", &helper("{ok, erlang:append_element(S, c)}")),
    );
    assert_eq!(found(&touched), [("no_way_back", "srv")]);
    let srv = module(&touched, "srv");
    assert_eq!((srv.pause, srv.state_moves, touched.stateless), (Pause::State, true, false));
}

#[test]
fn a_code_change_that_leaves_the_state_as_it_is() {
    if !compiled::has("erlc") {
        return;
    }
    let init = |record: &str| format!("init(A) -> {{ok, #{record}{{a = A}}}}.");
    let new = server(&init("wide"), "code_change(_, S, _) -> {ok, S}.");
    let analysis = compare(&server(&init("state"), ""), &new);
    assert_eq!(finding(&analysis, STATE).module, "srv");
    let srv = module(&analysis, "srv");
    assert_eq!((srv.code_change, srv.pause), (Conversion::Keeps, Pause::None));
}

#[test]
fn the_way_down_is_converted_by_what_runs() {
    if !compiled::has("erlc") {
        return;
    }
    let init = |record: &str| format!("init(A) -> {{ok, #{record}{{a = A}}}}.");
    let old = server(&init("state"), "");
    let way_back = "code_change({down, _}, S, _) -> {ok, up(S)};\ncode_change(_, S, _) -> {ok, S}.\nup(S) -> [S].";
    let down = |new: &Compiled| {
        let request =
            Request { before: &[&new[0].1], after: &[&old[0].1], down: true, ..Request::default() };
        analysis::analyse(&request)
    };
    let known = down(&server(&init("wide"), way_back));
    assert!(found(&known).is_empty(), "{:?}", known.findings);
    assert_eq!(module(&known, "srv").code_change, Conversion::Touched);
    let unknown = down(&server(&init("wide"), &way_back.replace("{down, _}", "1")));
    assert!(finding(&unknown, STATE).message.contains("{:down, vsn}"));
    // It is called all the same.
    assert_eq!(module(&unknown, "srv").pause, Pause::State);
}

/// The way back may be known to another module, and whoever has processes may not show it.
#[test]
fn a_code_change_is_called_both_ways_wherever_it_leads() {
    if !compiled::has("erlc") {
        return;
    }
    let state = |fields: &str, migrate: &str| {
        format!("-export([new/1, migrate/2]).\nnew(A) -> {{state, {fields}}}.\n{migrate}")
    };
    let old = state("A", "migrate(_, S) -> S.");
    let new = state(
        "A, 1",
        "migrate({down, _}, {state, A, _}) -> {state, A};\nmigrate(_, {state, A}) -> {state, A, 1}.",
    );
    let server = |tag: u32, behaviour: &str, init: &str| {
        format!(
            "{behaviour}-export([init/1, tag/0, code_change/3]).\ntag() -> {tag}.
init(A) -> {init}.\ncode_change(V, S, _) -> {{ok, state_:migrate(V, S)}}."
        )
    };
    for behaviour in ["-behaviour(gen_server).\n", ""] {
        let build = |tag, state: &str| {
            let server = server(tag, behaviour, "{ok, state_:new(A)}");
            erlang(&[("srv", server.as_str()), ("state_", state)])
        };
        let (from, to) = (build(1, &old), build(2, &new));
        let [from, to]: [Vec<&[u8]>; 2] =
            [&from, &to].map(|build| build.iter().map(|(_, file)| file.as_slice()).collect());
        let builds = Builds {
            application: "demo",
            versions: ["1", "2"],
            modules: [&from, &to],
            restart: false,
        };
        let appup = Appup::between(&builds).to_string();
        let update = "{update,srv,{advanced,[]},[state_]}";
        assert_eq!(appup.matches(update).count(), 2, "{behaviour}: {appup}");
    }
    // And it is known that the way back is known.
    let wide = |tag: u32| server(tag, "-behaviour(gen_server).\n", "{ok, {state, A}}");
    let old = erlang(&[("srv", wide(1).as_str()), ("state_", old.as_str())]);
    let shown = wide(2).replace("{ok, {state, A}}", "{ok, {state, A, 1}}");
    let analysis = compare(&old, &erlang(&[("srv", shown.as_str()), ("state_", new.as_str())]));
    assert!(found(&analysis).is_empty(), "{:?}", analysis.findings);
}

#[test]
fn a_change_of_functions_alone_moves_no_state() {
    if !compiled::has("erlc") {
        return;
    }
    let same = "code_change(_, S, _) -> {ok, S}.";
    let init = |more: &str| format!("init(A) -> {more}{{ok, #state{{a = A}}}}.");
    let analysis = compare(&server(&init(""), same), &server(&init("io:format(\"new\"), "), same));
    assert!(found(&analysis).is_empty(), "{:?}", analysis.findings);
    assert!(analysis.stateless && !module(&analysis, "srv").state_moves);
}

#[test]
fn a_code_change_that_gets_the_same_vsn() {
    if !compiled::has("erlc") {
        return;
    }
    let build = |vsn: u32, body: &str| {
        server(
            &format!("-vsn({vsn}).\ninit(A) -> {{ok, #state{{a = A}}}}."),
            &format!("code_change(_, S, _) -> {body}."),
        )
    };
    let analysis = compare(&build(1, "{ok, S}"), &build(1, "{ok, setelement(1, S, state)}"));
    assert_eq!(found(&analysis), [("vsn_unchanged", "srv")]);
    let analysis = compare(&build(1, "{ok, S}"), &build(2, "{ok, setelement(1, S, state)}"));
    assert!(found(&analysis).is_empty(), "{:?}", analysis.findings);
}

fn meter(fields: &str, more: &str) -> Compiled {
    elixir(&format!(
        r#"
defmodule Meter do
  use GenServer
  defstruct {fields}
  def init(n), do: {{:ok, %__MODULE__{{count: n}}}}
  def handle_call(:get, _from, s), do: {{:reply, s.count, s}}
  {more}
end
defmodule Reader do
  def fresh, do: %Meter{{count: 7}}
  def made(n), do: %Meter{{count: n}}
  def read(%Meter{{count: c}}), do: c
  def unit(%Meter{{unit: u}}), do: u
end
defmodule Holder do
  use GenServer
  def init(n), do: {{:ok, n}}
  def handle_call(:get, _from, %Meter{{}} = s), do: {{:reply, s.count, s}}
end
"#
    ))
}

/// The build with only one of its modules from another.
fn only(name: &str, old: &Compiled, new: &Compiled) -> Compiled {
    let mut all: Compiled = old.iter().filter(|(other, _)| other != name).cloned().collect();
    all.extend(new.iter().find(|(other, _)| other == name).cloned());
    all
}

#[test]
fn a_struct_that_is_a_state_and_is_made_elsewhere() {
    if !compiled::has("elixirc") {
        return;
    }
    let old = meter("count: 0, unit: :s", "");
    let new = only("Elixir.Meter", &old, &meter("count: 0, unit: :s, limit: 9", ""));
    let analysis = compare(&old, &new);
    let kinds = [
        ("struct_changed_without_code_change", "Elixir.Meter"),
        ("struct_literal_outdated", "Elixir.Meter"),
        ("struct_changed_in_state", "Elixir.Meter"),
    ];
    assert_eq!(found(&analysis), kinds);
    let state = finding(&analysis, kinds[0].0);
    assert_eq!(state.items, ["%Meter{count, unit}", "%Meter{count, limit, unit}"]);
    assert_eq!(finding(&analysis, kinds[1].0).items, ["Reader.fresh/0", "Reader.made/1"]);
    assert_eq!(finding(&analysis, kinds[2].0).items, ["Holder"]);

    let code_change = "def code_change(_, s, _), do: {:ok, Map.put(s, :limit, 9)}";
    let all = meter("count: 0, unit: :s, limit: 9", code_change);
    let together = compare(&old, &all);
    let kinds = [("no_way_back", "Elixir.Meter"), ("struct_changed_in_state", "Elixir.Meter")];
    assert_eq!(found(&together), kinds);
}

/// A server and the module that makes its states, with another between them where that is wanted.
fn made_elsewhere(server: &str, fields: &str, state: &str) -> Compiled {
    elixir(&format!(
        r#"
defmodule Srv do
  use GenServer
  {server}
  def handle_call(:get, _from, s), do: {{:reply, Made.show(s), s}}
end
defmodule Between do
  def new, do: Made.new()
end
defmodule Made do
  defstruct {fields}
  def show(s), do: s.a
  {state}
end
"#
    ))
}

#[test]
fn a_state_that_a_module_outside_has_from_one_that_changes() {
    if !compiled::has("elixirc") {
        return;
    }
    let record = |elements: &str| format!("def new, do: {{:made, {elements}}}");
    let map = |keys: &str| format!("def new, do: %{{{keys}}}");
    let same = || "def new, do: %__MODULE__{}".to_owned();
    let cases = [
        ("{:ok, Made.new()}", ["a: 1", "a: 1, b: 2"], [same(), same()], "%Made{a, b}"),
        ("{:ok, Between.new()}", ["a: 1", "a: 1, b: 2"], [same(), same()], "%Made{a, b}"),
        ("{:ok, struct(Made, [])}", ["a: 1", "a: 1, b: 2"], [same(), same()], "%Made{a, b}"),
        ("{:ok, struct!(Made)}", ["a: 1", "a: 1, b: 2"], [same(), same()], "%Made{a, b}"),
        (
            "Between.new()",
            ["a: 1", "a: 1"],
            ["%{a: 1}", "%{b: 1}"].map(|map| format!("def new, do: {{:ok, {map}}}")),
            "%{b}",
        ),
        ("{:ok, Made.new()}", ["a: 1", "a: 1"], ["1", "1, 2"].map(record), "{made, _, _}"),
        (
            "{:ok, Made.new(), :hibernate}",
            ["a: 1", "a: 1"],
            ["a: 1", "a: 1, c: 2"].map(map),
            "%{a, c}",
        ),
    ];
    for (init, [before, after], [old, new], form) in cases {
        // That it has a code_change does not help: nobody calls it.
        let server = format!(
            "def init(_), do: {init}\n  def code_change(_, s, _), do: {{:ok, Map.put(s, :b, 1)}}"
        );
        let old = made_elsewhere(&server, before, &old);
        let new = only("Elixir.Made", &old, &made_elsewhere(&server, after, &new));
        let analysis = compare(&old, &new);
        let name = match form.strip_prefix("%Made") {
            Some(_) => "struct_changed_without_code_change",
            None => STATE,
        };
        let state = finding(&analysis, name);
        assert_eq!(
            (state.module.as_str(), state.items[1].as_str()),
            ("Elixir.Srv", form),
            "{init}"
        );
        assert!(state.message.contains("no code_change is called"), "{}", state.message);
        assert!(!analysis.stateless);
    }
}

#[test]
fn a_state_that_does_not_show_and_is_made_by_what_changes() {
    if !compiled::has("elixirc") {
        return;
    }
    let new = |more: &str| format!("def new(a), do: Map.new([a{more}])\n  def other, do: 1");
    let build = |init: &str, more: &str| {
        made_elsewhere(&format!("def init(a), do: {init}"), "a: 1", &new(more))
            .into_iter()
            .filter(|(name, _)| name != "Elixir.Between")
            .collect::<Compiled>()
    };
    let changes = |init: &str| {
        let old = build(init, "");
        let new = only("Elixir.Made", &old, &build(init, ", {:b, 2}"));
        compare(&old, &new)
    };
    let unseen = changes("{:ok, Made.new(a)}");
    assert_eq!(found(&unseen), [("state_not_seen", "Elixir.Srv")]);
    assert_eq!(unseen.findings[0].items, ["Made.new/1"]);
    assert!(!unseen.stateless);
    // What it does not call, or what has not changed, is nothing to be told.
    for init in ["{:ok, Map.new([a])}", "{:ok, {a, Made.other()}}", "{:ok, %{a: Made.new(a)}}"] {
        let analysis = changes(init);
        assert!(found(&analysis).is_empty(), "{init}: {:?}", analysis.findings);
        assert!(analysis.stateless, "{init}");
    }
}

#[test]
fn a_struct_that_a_process_may_hold_without_naming_it() {
    if !compiled::has("elixirc") {
        return;
    }
    let server = "def init(a), do: {:ok, %{a: a}}\n  def handle_info(a, s), do: {:noreply, %{s | a: Made.new(a)}}";
    let new = "def new(a), do: %__MODULE__{a: a}";
    let old = made_elsewhere(server, "a: 1", new).into_iter();
    let old: Compiled = old.filter(|(name, _)| name != "Elixir.Between").collect();
    let new = only("Elixir.Made", &old, &made_elsewhere(server, "a: 1, b: 2", new));
    let analysis = compare(&old, &new);
    assert_eq!(found(&analysis), [("struct_changed_in_state", "Elixir.Made")]);
    assert_eq!(analysis.findings[0].items, ["Srv"]);
}

/// `struct/2` makes what the struct has become: its text need not change for that.
#[test]
fn a_code_change_that_makes_a_struct_by_its_name() {
    if !compiled::has("elixirc") {
        return;
    }
    let build = |tag: u32, fields: &str, convert: &str| {
        let server = format!(
            "def tag, do: {tag}\n  def init(_), do: {{:ok, Made.new()}}\n  def code_change(_, s, _), do: {{:ok, {convert}}}"
        );
        made_elsewhere(&server, fields, "def new, do: %__MODULE__{}")
    };
    let changes =
        |convert: &str| compare(&build(1, "a: 1", convert), &build(2, "a: 1, b: 2", convert));
    let made = changes("struct(Made, Map.from_struct(s))");
    assert_eq!(module(&made, "Elixir.Srv").code_change, Conversion::Touched);
    let kinds = [("no_way_back", "Elixir.Srv"), ("struct_changed_in_state", "Elixir.Made")];
    assert_eq!(found(&made), kinds);
    let kept = changes("Map.put(s, :a, 1)");
    assert_eq!(module(&kept, "Elixir.Srv").code_change, Conversion::Untouched);
    assert_eq!(finding(&kept, "struct_changed_without_code_change").module, "Elixir.Srv");
}

#[test]
fn a_field_that_is_used_elsewhere() {
    if !compiled::has("elixirc") {
        return;
    }
    let old = meter("count: 0, unit: :s", "");
    let without = elixir("defmodule Meter do\n  defstruct count: 0\nend");
    let analysis = compare(&old, &only("Elixir.Meter", &old, &without));
    let used = finding(&analysis, "struct_field_removed_but_used");
    assert!(used.items.contains(&"Reader.unit/1".to_owned()), "{used:?}");
    assert!(!used.items.contains(&"Reader.read/1".to_owned()), "{used:?}");
    assert_eq!(finding(&analysis, "role_changed").module, "Elixir.Meter");
}

#[test]
fn a_default_that_changes() {
    if !compiled::has("elixirc") {
        return;
    }
    let old = meter("count: 0, unit: :s", "");
    let analysis = compare(&old, &only("Elixir.Meter", &old, &meter("count: 0, unit: :m", "")));
    assert_eq!(found(&analysis), [("struct_default_changed", "Elixir.Meter")]);
    assert_eq!(analysis.findings[0].items, ["unit"]);
}
