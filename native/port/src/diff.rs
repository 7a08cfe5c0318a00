//! The command `diff`: in what two archives differ.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use hot_patch_beam::Module;
use hot_patch_beam::text::visible;
use hot_patch_core::{Composition, File, Kind, Options, json, read_archive};
use serde::Serialize;

use crate::cli::Diff;
use crate::outcome::{Error, Said, Verdict};
use crate::source;
use crate::style::{Paint, Tone};
use crate::table;

/// The difference between two archives.
#[derive(Debug, Serialize)]
struct Difference {
    old: String,
    new: String,
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<Change>,
    same: usize,
}

/// What differs in one file.
#[derive(Debug, Serialize)]
struct Change {
    path: String,
    /// `code`, `attributes`, `debug` or `content`.
    what: &'static str,
    old_size: usize,
    new_size: usize,
    exports_added: Vec<String>,
    exports_removed: Vec<String>,
}

pub(crate) fn run(args: &Diff, paint: Paint) -> Result<Said, Error> {
    let options = args.limits.options();
    let (old, new) = (source::read(&args.old, &options)?, source::read(&args.new, &options)?);
    let difference = compare(
        (&args.old, &accepted(&args.old, &old, &options)?),
        (&args.new, &accepted(&args.new, &new, &options)?),
    );
    let same = difference.added.is_empty()
        && difference.removed.is_empty()
        && difference.changed.is_empty();
    let text =
        if args.json { json::pretty(&difference)? + "\n" } else { render(&difference, paint) };
    Ok(Said { text, verdict: Verdict::good_if(same) })
}

fn accepted<'a>(path: &Path, bytes: &'a [u8], options: &Options) -> Result<Composition<'a>, Error> {
    read_archive(bytes, options).map_err(|refusal| Error::Refused {
        path: path.to_owned(),
        rule: refusal.rule.name(),
        message: refusal.message,
    })
}

fn compare(
    (old_path, old): (&Path, &Composition<'_>),
    (new_path, new): (&Path, &Composition<'_>),
) -> Difference {
    let (before, after) = (by_path(old), by_path(new));
    let missing = |these: &BTreeMap<&str, _>, those: &BTreeMap<&str, _>| {
        let names = these.keys().filter(|path| !those.contains_key(*path));
        names.map(|path| (*path).to_owned()).collect()
    };
    let both = before.iter().filter_map(|(path, old)| Some((*old, *after.get(path)?)));
    let changed: Vec<Change> = both.clone().filter_map(|(old, new)| change(old, new)).collect();
    Difference {
        old: old_path.display().to_string(),
        new: new_path.display().to_string(),
        added: missing(&after, &before),
        removed: missing(&before, &after),
        same: both.count() - changed.len(),
        changed,
    }
}

fn by_path<'c, 'a>(composition: &'c Composition<'a>) -> BTreeMap<&'a str, &'c File<'a>> {
    composition.files.iter().map(|file| (file.path, file)).collect()
}

fn change(old: &File<'_>, new: &File<'_>) -> Option<Change> {
    if old.bytes == new.bytes {
        return None;
    }
    let mut change = Change {
        path: new.path.to_owned(),
        what: "content",
        old_size: old.bytes.len(),
        new_size: new.bytes.len(),
        exports_added: Vec::new(),
        exports_removed: Vec::new(),
    };
    if let (Kind::Beam(old), Kind::Beam(new)) = (&old.kind, &new.kind) {
        change.what = match () {
            () if old.md5 != new.md5 => "code",
            () if old.attributes != new.attributes => "attributes",
            () => "debug",
        };
        change.exports_added = lacking(new, old);
        change.exports_removed = lacking(old, new);
    }
    Some(change)
}

/// The functions that `one` exports and `other` does not, in the order of its file.
fn lacking(one: &Module, other: &Module) -> Vec<String> {
    let others: HashSet<_> =
        other.exports().map(|export| (export.function, export.arity)).collect();
    one.exports()
        .filter(|export| !others.contains(&(export.function, export.arity)))
        .map(|export| format!("{}/{}", export.function, export.arity))
        .collect()
}

fn render(difference: &Difference, paint: Paint) -> String {
    let mut text = format!(
        "{} -> {}: {} added, {} removed, {} changed, {} the same\n",
        visible(&difference.old),
        visible(&difference.new),
        difference.added.len(),
        difference.removed.len(),
        difference.changed.len(),
        difference.same,
    );
    let mut rows = Vec::new();
    let mut row = |tone, what: &str, path: &str, how: String| {
        rows.push((tone, [what.to_owned(), path.to_owned(), how]));
    };
    difference.removed.iter().for_each(|path| row(Tone::Bad, "removed", path, String::new()));
    difference.added.iter().for_each(|path| row(Tone::Good, "added", path, String::new()));
    difference.changed.iter().for_each(|c| row(Tone::Changed, "changed", &c.path, how(c)));
    if !rows.is_empty() {
        text += &table::render(["FILE", "PATH", "HOW"], &rows, paint);
    }
    text
}

fn how(change: &Change) -> String {
    let what = match change.what {
        "code" => "other code",
        "attributes" => "other attributes, same code",
        "debug" => "other debug information, same code",
        _ => "other content",
    };
    let mut text = format!("{what}, {} -> {} bytes", change.old_size, change.new_size);
    for (sign, names) in [('+', &change.exports_added), ('-', &change.exports_removed)] {
        for name in names {
            text += &format!(" {sign}{}", printable(name));
        }
    }
    text
}

/// Names of functions are whatever the archive says.
fn printable(name: &str) -> String {
    name.chars().flat_map(char::escape_debug).collect()
}
