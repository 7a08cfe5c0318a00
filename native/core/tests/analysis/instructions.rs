//! Instructions as text and back.

use hot_patch_beam::etf::{self, Term};
use hot_patch_core::analysis::Builds;
use hot_patch_core::appup::{
    Appup, Change, Instruction, LoadModule, ModuleType, ParseError, Processes, Purge, Purges,
    Start, SyntaxError, Timeout, Update, Value, read, with_term,
};

use crate::support::compiled;
use crate::support::random::Random;

/// All forms as OTP's manual has them, and the shortest way to write each.
const FORMS: [(&str, &str); 25] = [
    ("{update, m}", "{update,m}"),
    ("{update, m, supervisor}", "{update,m,supervisor}"),
    ("{update, m, {supervisor, children}}", "{update,m,{supervisor,children}}"),
    ("{update, m, soft}", "{update,m}"),
    ("{update, m, {advanced, []}}", "{update,m,{advanced,[]}}"),
    ("{update, m, [n]}", "{update,m,[n]}"),
    ("{update, m, {advanced, \"x\"}, [n, 'O']}", "{update,m,{advanced,\"x\"},[n,'O']}"),
    (
        "{update, m, soft, soft_purge, brutal_purge, []}",
        "{update,m,soft,soft_purge,brutal_purge,[]}",
    ),
    ("{update, m, soft, brutal_purge, brutal_purge, [n]}", "{update,m,[n]}"),
    (
        "{update, m, 500, {advanced, x}, soft_purge, soft_purge, []}",
        "{update,m,500,{advanced,x},soft_purge,soft_purge,[]}",
    ),
    (
        "{update, m, infinity, soft, brutal_purge, brutal_purge, []}",
        "{update,m,infinity,soft,brutal_purge,brutal_purge,[]}",
    ),
    (
        "{update, m, static, default, {advanced, #{a => -1.5e3}}, brutal_purge, soft_purge, [n]}",
        "{update,m,static,default,{advanced,#{a => -1.5e3}},brutal_purge,soft_purge,[n]}",
    ),
    ("{update, m, dynamic, default, soft, brutal_purge, brutal_purge, []}", "{update,m}"),
    ("{load_module, m}", "{load_module,m}"),
    ("{load_module, m, [n]}", "{load_module,m,[n]}"),
    ("{load_module, m, soft_purge, soft_purge, []}", "{load_module,m,soft_purge,soft_purge,[]}"),
    ("{add_module, 'Elixir.M'}", "{add_module,'Elixir.M'}"),
    ("{delete_module, m, [n]}", "{delete_module,m,[n]}"),
    ("{add_application, a}", "{add_application,a}"),
    ("{add_application, a, permanent}", "{add_application,a}"),
    ("{add_application, a, load}", "{add_application,a,load}"),
    ("{remove_application, a}", "{remove_application,a}"),
    ("{restart_application, a}", "{restart_application,a}"),
    ("{apply, {m, f, [1, <<\"b\">>, {x}]}}", "{apply,{m,f,[1,<<\"b\">>,{x}]}}"),
    ("restart_new_emulator .", "restart_new_emulator"),
];

#[test]
fn every_form_is_read_and_written() {
    for (text, shortest) in FORMS {
        let instruction =
            Instruction::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(instruction.to_string(), shortest);
        assert_eq!(Instruction::parse(shortest), Ok(instruction));
    }
}

/// As far as a reader of the encoded term can see: one by one what the text says.
#[test]
fn every_form_is_encoded_for_those_who_carry_it_out() {
    let texts: Vec<&str> = FORMS.iter().map(|(text, _)| *text).collect();
    let bytes = with_term(&read(&texts), etf::encode);
    let term = etf::decode(&bytes, etf::Limits { depth: 16, terms: 10_000 }).unwrap();
    let Term::Tuple(pair) = term else { panic!("no tuple") };
    assert_eq!(pair[0].as_atom(), Some("ok"));
    let steps = pair[1].as_list().unwrap();
    assert_eq!(steps.len(), FORMS.len());
    for (step, (_, shortest)) in steps.iter().zip(FORMS) {
        let Term::Map(fields) = step else { panic!("no map") };
        let field =
            |name: &str| &fields.iter().find(|(key, _)| key.as_atom() == Some(name)).unwrap().1;
        assert_eq!(*field("text"), Term::Binary(shortest.as_bytes()));
        assert!(field("what").as_atom().is_some_and(|what| shortest.contains(what)));
    }
    assert!(read(&["{update,m}", "{updaet,m}"]).unwrap_err().contains("{updaet,m}"));
}

#[test]
fn what_is_no_instruction() {
    for text in [
        "{update}",
        "{update, m, hard}",
        "{update, \"m\"}",
        "{load_module, m, n}",
        "{update, m, 0, soft, soft_purge, soft_purge, []}",
        "{apply, m}",
        "{reload, m}",
        "{add_application, a, sometimes}",
        "{update, m, [n | o]}",
        "{update, m",
        "{update, m}} ",
        "{update, M}",
        "",
        "{update, 'm}",
        "{load_module, '\\q'}",
    ] {
        assert!(Instruction::parse(text).is_err(), "{text}");
    }
    let deep = format!("{{apply,{{m,f,{}{}}}}}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(matches!(Instruction::parse(&deep), Err(ParseError::Syntax(SyntaxError::TooDeep(_)))));
    assert_eq!(
        Instruction::parse(&" ".repeat(2_000_000)),
        Err(ParseError::Syntax(SyntaxError::TooLong))
    );
}

fn name(random: &mut Random) -> String {
    const NAMES: [&str; 8] =
        ["m", "Elixir.My.Module", "a b", "it's", "end", "ünder", "new\nline", "\\"];
    NAMES[random.below(NAMES.len())].to_owned()
}

fn names(random: &mut Random) -> Vec<String> {
    (0..random.below(3)).map(|_| name(random)).collect()
}

fn value(random: &mut Random, depth: usize) -> Value {
    let inside = |random: &mut Random| -> Vec<Value> {
        (0..random.below(3)).map(|_| value(random, depth + 1)).collect()
    };
    match random.below(if depth > 3 { 5 } else { 8 }) {
        0 => Value::Atom(name(random)),
        1 => Value::Integer("-123456789012345678901234567890".to_owned()),
        2 => Value::Float("0.25e-3".to_owned()),
        3 => Value::String(name(random)),
        4 => Value::Binary(name(random)),
        5 => Value::List(inside(random)),
        6 => Value::Tuple(inside(random)),
        _ => Value::Map(inside(random).into_iter().map(|key| (key, Value::atom("v"))).collect()),
    }
}

fn instruction(random: &mut Random) -> Instruction {
    let purge = |random: &mut Random| [Purge::Brutal, Purge::Soft][random.below(2)];
    let purges = Purges { pre: purge(random), post: purge(random) };
    let (module, dependencies) = (name(random), names(random));
    match random.below(10) {
        0 => Instruction::Update(Update::Supervisor(module)),
        9 => Instruction::Update(Update::Children(module)),
        1 | 2 => Instruction::Update(Update::Processes(Processes {
            module,
            change: [Change::Soft, Change::Advanced(value(random, 0))][random.below(2)].clone(),
            kind: [ModuleType::Dynamic, ModuleType::Static][random.below(2)],
            timeout: [Timeout::Default, Timeout::Infinity, Timeout::Milliseconds(7)]
                [random.below(3)],
            purge: purges,
            dependencies,
        })),
        3 => Instruction::LoadModule(LoadModule { module, purge: purges, dependencies }),
        4 => Instruction::AddModule { module, dependencies },
        5 => Instruction::DeleteModule { module, dependencies },
        6 => Instruction::AddApplication {
            application: module,
            start: [Start::Permanent, Start::Load, Start::None][random.below(3)],
        },
        7 => Instruction::RestartApplication(module),
        _ => Instruction::Apply {
            module,
            function: name(random),
            arguments: (0..random.below(3)).map(|_| value(random, 0)).collect(),
        },
    }
}

#[test]
fn whatever_is_written_is_read_again() {
    let mut random = Random(0x5eed_0004);
    for _ in 0..5_000 {
        let instruction = instruction(&mut random);
        let text = instruction.to_string();
        assert_eq!(Instruction::parse(&text).as_ref(), Ok(&instruction), "{text}");
    }
}

#[test]
fn an_appup_between_two_builds() {
    if !compiled::has("erlc") {
        return;
    }
    let server = |state: &str, code_change: &str| {
        format!(
            "-behaviour(gen_server).\n-export([init/1, handle_call/3, handle_cast/2, code_change/3]).\ninit(A) -> {{ok, {state}}}.\nhandle_call(_, _, S) -> {{reply, lib:f(S), S}}.\nhandle_cast(_, S) -> {{noreply, S}}.\ncode_change(_, S, _) -> {{ok, {code_change}}}."
        )
    };
    let lib = |body: &str| format!("-export([f/1]).\nf(X) -> {body}.");
    let old = [("srv", server("A", "S")), ("lib", lib("X")), ("gone", lib("X"))];
    let new =
        [("srv", server("{A}", "[down | S]")), ("lib", lib("extra:f(X)")), ("extra", lib("X"))];
    let [old, new] = [old, new].map(|build| {
        compiled::erlang(&build.each_ref().map(|(name, text)| (*name, text.as_str())))
    });
    let files = |build: &compiled::Compiled| -> Vec<Vec<u8>> {
        build.iter().map(|one| one.1.clone()).collect()
    };
    let (old, new) = (files(&old), files(&new));
    let [old, new]: [Vec<&[u8]>; 2] =
        [&old, &new].map(|build| build.iter().map(Vec::as_slice).collect());
    let builds = Builds {
        application: "app",
        versions: ["1.0", "2.0"],
        modules: [&old, &new],
        restart: false,
    };
    let appup = Appup::between(&builds);
    let text = "{\"2.0\",
 [{\"1.0\",
   [{add_module,extra},
    {load_module,lib,[extra]},
    {update,srv,{advanced,[]},[lib]},
    {delete_module,gone}]}],
 [{\"1.0\",
   [{add_module,gone},
    {load_module,lib},
    {update,srv,{advanced,[]},[lib]},
    {delete_module,extra}]}]}.
";
    assert_eq!(appup.to_string(), text);
    assert_eq!(Appup::parse(text), Ok(appup));
    assert_eq!(
        Appup::parse("% a comment\n{\"1\", [], [{<<\"0[.].*\">>, []}]}.").unwrap().down.len(),
        1
    );
    let restart = Appup::between(&Builds { restart: true, ..builds }).to_string();
    assert!(restart.contains("[{restart_application,app}]"));
}
