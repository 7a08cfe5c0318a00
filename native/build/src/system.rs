//! What a patch may never touch: it changes with an upgrade.

/// OTP, Elixir and HotPatch itself, as `HotPatch.Host.SystemLibrary` lists them.
#[rustfmt::skip]
pub const APPLICATIONS: &[&str] = &[
    "asn1", "common_test", "compiler", "crypto", "debugger", "dialyzer", "diameter", "edoc",
    "eldap", "erl_docgen", "erl_interface", "erts", "et", "eunit", "ftp", "inets", "jinterface",
    "kernel", "megaco", "mnesia", "observer", "odbc", "os_mon", "parsetools", "public_key",
    "reltool", "runtime_tools", "sasl", "snmp", "ssh", "ssl", "stdlib", "syntax_tools", "tftp",
    "tools", "wx", "xmerl",
    "eex", "elixir", "ex_unit", "iex", "logger", "mix",
    "hot_patch",
];

/// Whether an application of this name belongs to the system.
pub(crate) fn is_system(application: &str) -> bool {
    APPLICATIONS.contains(&application)
}
