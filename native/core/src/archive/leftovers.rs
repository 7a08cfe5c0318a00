//! What the Mac puts beside the files of a folder, and its Archive Utility into every archive: no
//! system that is patched has a use for it.

/// Whether `path` is the settings of a Finder window, or what a file on another disk has beside its
/// content (AppleDouble), in a folder of its own or beside the file.
pub fn is_of_mac(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("__MACOSX/") || file == ".DS_Store" || file.starts_with("._")
}

#[cfg(test)]
mod tests {
    use super::is_of_mac;

    #[test]
    fn knows_the_mac_and_leaves_the_rest() {
        for path in ["__MACOSX/ebin/._a.beam", "__MACOSX/x", ".DS_Store", "a/.DS_Store", "a/._b"] {
            assert!(is_of_mac(path), "{path}");
        }
        for path in [
            "a/__MACOSX/x",
            "__MACOSX",
            "x.DS_Store",
            ".ds_store",
            "a._b",
            "_.b",
            "._a/b",
            ".gitkeep",
        ] {
            assert!(!is_of_mac(path), "{path}");
        }
    }
}
