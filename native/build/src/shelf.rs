//! Applications of the same version that another compiler has made otherwise.
//!
//! With another Erlang or Elixir every application is compiled anew, and its version says nothing of that.
//! Its folder is there already and is not overwritten, as the release of before boots from it. So the
//! new one comes among the files of its release, `releases/VERSION/lib/NAME-VERSION`, and the boot
//! scripts of that release name it there.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// The tag of a list of bytes in the external term format, and the bytes before those of the list.
const STRING: u8 = b'k';
const STRING_HEADER: usize = 3;

/// What begins a term that is compressed as a whole.
const COMPRESSED: &[u8] = &[131, b'P'];

/// Where applications lie that are not in `lib`.
pub(crate) struct Shelf<'s> {
    /// The version of the release whose they are.
    pub(crate) version: &'s str,
    /// Their folders, `NAME-VERSION`.
    pub(crate) folders: BTreeSet<String>,
}

impl Shelf<'_> {
    /// Where the folder of one of them comes to.
    pub(crate) fn path(&self, folder: &str) -> String {
        format!("releases/{}/lib/{folder}", self.version)
    }

    /// A file of the release, with the folders named where they are, if it is a boot script.
    pub(crate) fn rewritten<'b>(&self, path: &str, bytes: Cow<'b, [u8]>) -> Cow<'b, [u8]> {
        if self.folders.is_empty() || !path.starts_with("releases/") {
            bytes
        } else if path.ends_with(".boot") {
            Cow::Owned(self.in_boot(&bytes))
        } else if path.ends_with(".script") {
            Cow::Owned(self.in_script(&bytes))
        } else {
            bytes
        }
    }

    /// The first of the folders that a boot script does not name: nothing could be booted from there.
    pub(crate) fn unnamed(&self, boot: &[u8]) -> Option<&str> {
        let is_named = |folder: &String| {
            let wanted = format!("/{folder}/ebin");
            strings(boot).any(|(_, text)| text.ends_with(wanted.as_bytes()))
        };
        if boot.starts_with(COMPRESSED) {
            return self.folders.first().map(String::as_str);
        }
        self.folders.iter().find(|folder| !is_named(folder)).map(String::as_str)
    }

    /// A boot script is one term, in which each path is a list of bytes with its length before it.
    fn in_boot(&self, boot: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(boot.len());
        let mut done = 0;
        for (at, text) in strings(boot) {
            let Some(other) = self.moved(text) else { continue };
            let Ok(length) = u16::try_from(other.len()) else { continue };
            out.extend_from_slice(boot.get(done..at).unwrap_or_default());
            out.push(STRING);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(&other);
            done = at + STRING_HEADER + text.len();
        }
        out.extend_from_slice(boot.get(done..).unwrap_or_default());
        out
    }

    /// The same as text, for people.
    fn in_script(&self, script: &[u8]) -> Vec<u8> {
        let parts = script.split(|byte| *byte == b'"');
        let parts = parts.map(|part| self.moved(part).map_or(Cow::Borrowed(part), Cow::Owned));
        parts.collect::<Vec<_>>().join(&b'"')
    }

    /// `$RELEASE_LIB/NAME-VERSION/ebin`, or whatever else is before it, of one of them.
    fn moved(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = str::from_utf8(path).ok()?;
        let (lib, folder) = path.strip_suffix("/ebin")?.rsplit_once('/')?;
        // What stands before it is all that is known of where that folder is.
        let root = match lib.rsplit_once('/') {
            Some((root, "lib")) => root.to_owned(),
            _ => format!("{lib}/.."),
        };
        // One that was named there before stays so.
        let root = root.strip_suffix(&format!("/releases/{}", self.version)).unwrap_or(&root);
        let moved = || format!("{root}/{}/ebin", self.path(folder)).into_bytes();
        self.folders.contains(folder).then(moved)
    }
}

/// All that stands in a term as a list of bytes and ends like a path of modules, with where it begins.
/// A path is printable, so that no length of one can begin within another.
fn strings(term: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let starts = term.iter().enumerate().filter(|(_, byte)| **byte == STRING).map(|(at, _)| at);
    let text = |at: usize| {
        let header = term.get(at..at + STRING_HEADER)?;
        let &[_, high, low] = header else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let start = at + STRING_HEADER;
        let text = term.get(start..start.checked_add(length)?)?;
        let is_path = text.ends_with(b"/ebin") && text.iter().all(|byte| (32..127).contains(byte));
        is_path.then_some((at, text))
    };
    starts.filter_map(text)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::Shelf;

    const BOOT: &str = "releases/1.1.0/start.boot";

    fn shelf() -> Shelf<'static> {
        Shelf { version: "1.1.0", folders: ["jason-1.4.0".to_owned()].into() }
    }

    /// `[{path, [...]}]`, as systools writes it.
    fn boot(paths: &[&str]) -> Vec<u8> {
        let mut term = b"\x83l\0\0\0\x01h\x02w\x04pathl\0\0\0".to_vec();
        term.push(u8::try_from(paths.len()).unwrap());
        for path in paths {
            term.push(b'k');
            term.extend(u16::try_from(path.len()).unwrap().to_be_bytes());
            term.extend(path.bytes());
        }
        term.extend(b"jj");
        term
    }

    #[test]
    fn a_boot_script_names_them_where_they_are() {
        let other = "$RELEASE_LIB/ajason-1.4.0/ebin";
        let shelf = shelf();
        for (before, after) in [
            (
                "$RELEASE_LIB/jason-1.4.0/ebin",
                "$RELEASE_LIB/../releases/1.1.0/lib/jason-1.4.0/ebin",
            ),
            ("$ROOT/lib/jason-1.4.0/ebin", "$ROOT/releases/1.1.0/lib/jason-1.4.0/ebin"),
        ] {
            let (before, after) = (boot(&[before, other]), boot(&[after, other]));
            assert_eq!(shelf.rewritten(BOOT, Cow::Borrowed(&before)), after);
            assert_eq!(shelf.rewritten(BOOT, Cow::Borrowed(&after)), after);
            assert_eq!(
                shelf.rewritten("releases/1.1.0/sys.config", Cow::Borrowed(&before)),
                before
            );
            assert_eq!(shelf.unnamed(&before), None);
        }
        assert_eq!(shelf.unnamed(&boot(&["$RELEASE_LIB/jason-1.4.1/ebin"])), Some("jason-1.4.0"));
        assert_eq!(shelf.unnamed(b"\x83P\0\0\0\x01"), Some("jason-1.4.0"));
    }

    #[test]
    fn so_does_its_text() {
        let text = b"{path,[\"$RELEASE_LIB/jason-1.4.0/ebin\",\"/x\"]}";
        let expected = b"{path,[\"$RELEASE_LIB/../releases/1.1.0/lib/jason-1.4.0/ebin\",\"/x\"]}";
        let path = "releases/1.1.0/start.script";
        assert_eq!(&*shelf().rewritten(path, Cow::Borrowed(text)), expected);
    }
}
