//! Two releases of a shop.

use hot_patch_build::Built;

use super::{Folder, built, module, request, try_build};

pub(crate) const SYSTEM: &str = "{kernel,\"8.5.3\"},{elixir,\"1.14.0\"},{scales,\"1.0.0\"}";

/// A release of a shop with what more `own` names, such as `{shop,"1.0.0"}`.
pub(crate) fn release(name: &str, vsn: &str, own: &str) -> Folder {
    let folder = Folder::new(&format!("upgrade_{name}"));
    folder.put("releases/start_erl.data", format!("13.1.5 {vsn}").as_bytes());
    let rel = format!(
        "%% coding: utf-8\n{{release,{{\"shop\",\"{vsn}\"}},{{erts,\"13.1.5\"}},[{SYSTEM},{own}]}}.\n"
    );
    let version = |file: &str| format!("releases/{vsn}/{file}");
    folder.put(&version("shop.rel"), rel.as_bytes());
    folder.put(&version("start.boot"), vsn.as_bytes());
    folder.put(&version("sys.config"), b"[].");
    folder.put(&version("consolidated/p.beam"), &module("p", 1).bytes());
    folder.put("lib/scales-1.0.0/ebin/w.beam", &module("w", 1).bytes());
    folder.put("lib/scales-1.0.0/ebin/scales.app", b"{application,scales,[{vsn,\"1.0.0\"}]}.");
    folder.put("lib/kernel-8.5.3/ebin/k.beam", &module("k", 1).bytes());
    folder
}

pub(crate) fn application(folder: &Folder, name: &str, vsn: &str, modules: &[(&str, u8)]) {
    let root = format!("lib/{name}-{vsn}");
    let resource = format!("{{application,{name},[{{vsn,\"{vsn}\"}},{{mod,{{{name},[]}}}}]}}.\n");
    folder.put(&format!("{root}/ebin/{name}.app"), resource.as_bytes());
    folder.put(&format!("{root}/priv/help/{name}.txt"), b"1");
    for (name, vsn) in modules {
        folder.put(&format!("{root}/ebin/{name}.beam"), &module(name, *vsn).bytes());
    }
}

/// Of the two releases `a` stays, `b` changes, `c` goes and `d` comes; `legacy` goes, `rates` comes.
pub(crate) fn releases(test: &str) -> [Folder; 2] {
    let from =
        release(&format!("{test}_from"), "1.0.0", "{legacy,\"0.3.0\"},{shop,\"1.0.0\",permanent}");
    application(&from, "shop", "1.0.0", &[("a", 1), ("b", 1), ("c", 1), ("p", 1)]);
    application(&from, "legacy", "0.3.0", &[("l", 1)]);
    let to = release(
        &format!("{test}_to"),
        "1.1.0",
        "{rates,\"0.1.0\",temporary},{shop,\"1.1.0\",permanent}",
    );
    application(&to, "shop", "1.1.0", &[("a", 1), ("b", 2), ("d", 1), ("p", 1)]);
    application(&to, "rates", "0.1.0", &[("r", 1)]);
    [from, to]
}

pub(crate) fn built_of(releases: &[Folder; 2]) -> Built {
    built(&request(&releases[0].0, &releases[1].0))
}

pub(crate) fn error_of(releases: &[Folder; 2]) -> String {
    try_build(&request(&releases[0].0, &releases[1].0)).unwrap_err().to_string()
}
