//! Why an archive was refused.

use std::borrow::Cow;
use std::fmt::Display;

use hot_patch_beam::text;

macro_rules! rules {
    ($($variant:ident, $name:literal, $what:literal, $next:literal;)+) => {
        /// A rule that an archive must keep. The name is stable: it crosses to Erlang as an atom.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Rule {
            $(#[doc = $what] #[doc = ""] #[doc = $next] $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Rule] = &[$(Rule::$variant,)+];

            /// The rule's name in `snake_case`.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)+ }
            }

            /// What the rule refuses, as a sentence.
            pub fn what(self) -> &'static str {
                match self { $(Rule::$variant => $what,)+ }
            }

            /// What to do about it, as a sentence.
            pub fn next_step(self) -> &'static str {
                match self { $(Rule::$variant => $next,)+ }
            }
        }
    };
}

rules! {
    // The archive as a whole.
    ArchiveTooBig, "archive_too_big",
        "The archive has more bytes than the limit.",
        "Leave out what need not be patched, or raise the limit for the archive's size (max_archive_bytes, or max_release_bytes of an upgrade).";
    NotAZip, "not_a_zip",
        "The bytes are not a zip archive.",
        "Upload a zip archive of .beam files.";
    Truncated, "truncated",
        "The archive ends before it is complete.",
        "It was probably cut off on the way: upload it again.";
    EmptyArchive, "empty_archive",
        "The archive holds no file.",
        "Build the archive again with the .beam files in it.";
    TooManyEntries, "too_many_entries",
        "The archive has more entries than the limit.",
        "Leave out what need not be patched, or raise the limit for entries (max_entries).";
    UnpackedTooBig, "unpacked_too_big",
        "Unpacking the archive makes more bytes than the limit.",
        "Leave out what need not be patched, or raise the limit for unpacked bytes (max_unpacked_bytes).";
    OutOfMemory, "out_of_memory",
        "The system would not give the memory to unpack the archive.",
        "Free memory on this node, or upload a smaller archive.";
    MultiDisk, "multi_disk",
        "The archive is one part of a set that spans several disks.",
        "Build the patch as one archive.";
    Zip64, "zip64",
        "The archive uses zip64, which only files over 4 GB or more than 65,535 entries need.",
        "Build the archive without zip64 (no `-fz`, no `force_zip64`, no unknown sizes).";
    Prefix, "prefix",
        "There are bytes before the first entry.",
        "Build the archive afresh; a self-extracting program or an escript is no patch.";
    Suffix, "suffix",
        "There are bytes after the end of the archive.",
        "Build the archive afresh and upload it unchanged.";
    SecondArchive, "second_archive",
        "The bytes hold more than one zip archive, so that readers differ on what is in it.",
        "Upload one archive, built in one go, without zip records in its comment.";
    HiddenEntry, "hidden_entry",
        "There is an entry that the archive's directory does not list.",
        "Build the archive afresh, so that it lists all it holds.";
    Gap, "gap",
        "There are bytes that belong to no entry.",
        "Build the archive afresh; do not edit an archive in place.";
    Overlap, "overlap",
        "Two parts of the archive claim the same bytes.",
        "Build the archive afresh with a common zip tool.";
    BadDirectory, "bad_directory",
        "The archive's directory contradicts its end record.",
        "The archive is damaged or was tampered with: build it afresh.";
    BadLocalHeader, "bad_local_header",
        "The directory points to a place where no entry begins.",
        "The archive is damaged or was tampered with: build it afresh.";
    HeaderMismatch, "header_mismatch",
        "An entry's own header and the directory describe it differently.",
        "The archive is damaged or was tampered with: build it afresh.";
    BadDescriptor, "bad_descriptor",
        "The record after an entry's data contradicts the directory.",
        "The archive is damaged or was tampered with: build it afresh.";
    BareDescriptor, "bare_descriptor",
        "The sizes after the data of a stored entry have no signature, so that a reader of a stream does not find them.",
        "Build the archive into a file, or with compression.";
    BadExtraField, "bad_extra_field",
        "An extra field of an entry is cut off or malformed.",
        "Build the archive afresh with a common zip tool.";
    UnknownExtraField, "unknown_extra_field",
        "An entry has an extra field that is none of those which zip tools write by default; some make another thing of an entry.",
        "Build the archive afresh with a common zip tool and its defaults.";
    InconsistentHeaders, "inconsistent_headers",
        "A second zip reader, asked as a cross-check, reads the archive differently.",
        "Build the archive afresh with a common zip tool.";

    // The name of one entry.
    NameEmpty, "name_empty",
        "An entry has no name.",
        "Build the archive afresh with a common zip tool.";
    NameTooLong, "name_too_long",
        "The name of an entry is longer than the limit.",
        "Shorten the path, or raise the limit for names (max_name_bytes).";
    NameNotUtf8, "name_not_utf8",
        "The name of an entry is not UTF-8.",
        "Rename the file, or use a zip tool that writes UTF-8 names.";
    NameNul, "name_nul",
        "The name of an entry contains a NUL byte.",
        "Rename the file.";
    NameControl, "name_control",
        "The name of an entry contains a control character.",
        "Rename the file.";
    NameInvisible, "name_invisible",
        "The name of an entry contains characters that are invisible or turn the direction of text.",
        "Rename the file, so that it reads as what it is.";
    NameBackslash, "name_backslash",
        "The name of an entry contains a backslash.",
        "Use a zip tool that separates folders with a slash.";
    NameAbsolute, "name_absolute",
        "The name of an entry is an absolute path.",
        "Build the archive from within the folder, with relative names.";
    NameDrive, "name_drive",
        "The name of an entry begins with a drive letter.",
        "Build the archive from within the folder, with relative names.";
    NameParent, "name_parent",
        "The name of an entry has a part `..`, which leads out of the archive.",
        "Build the archive from within the folder, with relative names.";
    NameDot, "name_dot",
        "The name of an entry has a part `.`, so one file has several names.",
        "Build the archive with plain relative names.";
    NameEmptyPart, "name_empty_part",
        "The name of an entry has an empty part, as in `a//b`.",
        "Build the archive with plain relative names.";
    NameTrailingDot, "name_trailing_dot",
        "The name of an entry has a part that ends with a dot, which Windows leaves away.",
        "Rename the file.";
    NameTrailingSpace, "name_trailing_space",
        "The name of an entry has a part that ends with a space, which Windows leaves away.",
        "Rename the file.";
    NameColon, "name_colon",
        "The name of an entry contains a colon, behind which Windows sees a stream of another file.",
        "Rename the file.";
    NameWindows, "name_windows",
        "The name of an entry contains one of the characters `\" * < > ? |`, which Windows has in no name and readers there replace.",
        "Rename the file.";
    NameReserved, "name_reserved",
        "The name of an entry has a part that is a device on Windows, as CON or NUL, whatever follows its first dot.",
        "Rename the file.";
    NameVersion, "name_version",
        "The name of an entry ends as a version number of VMS does, in `;1`, which some readers leave away.",
        "Rename the file.";
    SecondName, "second_name",
        "An extra field gives an entry another name than its header.",
        "Use a zip tool that writes UTF-8 names, or rename the file.";

    // The names together.
    DuplicateName, "duplicate_name",
        "Two entries have the same name.",
        "Build the archive afresh, with each file once.";
    CaseCollision, "case_collision",
        "Two names differ only in upper and lower case.",
        "Rename one of them: on some disks they are one file.";
    UnicodeCollision, "unicode_collision",
        "Two names are the same text, written with other characters (Unicode normalisation).",
        "Rename one of them: on some disks they are one file.";
    FileIsFolder, "file_is_folder",
        "A name is both a file and a folder.",
        "Rename one of them.";

    // What kind of thing an entry is.
    Symlink, "symlink",
        "An entry is a symbolic link.",
        "Put the file itself into the archive (`zip` without `-y`).";
    SpecialFile, "special_file",
        "An entry is a fifo, a device, a socket or the like.",
        "Put only files and folders into the archive.";
    UnknownSystem, "unknown_system",
        "An entry says that it was made on a system whose attributes some readers take for another kind of thing.",
        "Build the archive afresh with a common zip tool.";
    VolumeLabel, "volume_label",
        "An entry is the label of a disk by its MS-DOS attributes, which some readers leave out.",
        "Build the archive afresh with a common zip tool.";
    KindMismatch, "kind_mismatch",
        "The name of an entry says folder and its attributes say file, or the reverse.",
        "Build the archive afresh with a common zip tool.";
    FolderWithData, "folder_with_data",
        "A folder has content.",
        "Build the archive afresh with a common zip tool.";
    Encrypted, "encrypted",
        "An entry is encrypted.",
        "Build the archive without a password.";
    UnsupportedMethod, "unsupported_method",
        "An entry is packed with another method than store or deflate.",
        "Build the archive with the zip tool's default method.";
    UnsupportedVersion, "unsupported_version",
        "An entry says that it takes a newer zip reader than common ones are; those leave it out.",
        "Build the archive with a common zip tool and its defaults.";
    UnsupportedFlag, "unsupported_flag",
        "An entry uses a feature of zip that no patch needs.",
        "Build the archive with a common zip tool and its defaults.";

    // The content of one entry.
    RecordInData, "record_in_data",
        "The data of a stored entry whose size follows it holds a zip record, at which a reader of a stream would end it.",
        "Build the archive into a file, or with compression.";
    DamagedStream, "damaged_stream",
        "The packed data of an entry cannot be unpacked.",
        "The archive is damaged: upload it again, or build it afresh.";
    BytesAfterStream, "bytes_after_stream",
        "There are bytes after the end of an entry's packed data.",
        "Build the archive afresh with a common zip tool.";
    SizeTooSmall, "size_too_small",
        "An entry unpacks to more bytes than it declares.",
        "The archive is damaged or was tampered with: build it afresh.";
    SizeTooLarge, "size_too_large",
        "An entry unpacks to fewer bytes than it declares.",
        "The archive is damaged or was tampered with: build it afresh.";
    BadCrc, "bad_crc",
        "The content of an entry does not match its checksum.",
        "The archive is damaged: upload it again, or build it afresh.";

    // What all modules together take in the VM that loads them.
    TooManyAtoms, "too_many_atoms",
        "The modules together have more atoms than the limit; atoms stay in a VM for good.",
        "Leave out what need not be patched, or raise the limit for atoms (max_atoms).";
    TooManyFunctions, "too_many_functions",
        "The modules together have and call more functions than the limit.",
        "Leave out what need not be patched, or raise the limit for functions (max_functions).";
    TooMuchMemory, "too_much_memory",
        "The modules together take more memory in the VM than the limit.",
        "Leave out what need not be patched, or raise the limit for memory (max_memory).";

    // The manifest, and its signature.
    ManifestTooBig, "manifest_too_big",
        "The manifest has more bytes than any patch needs.",
        "Build the patch with `mix hot_patch.build`, or make it smaller.";
    ManifestTooDeep, "manifest_too_deep",
        "The manifest is nested deeper than its schema.",
        "Build the patch with `mix hot_patch.build`.";
    ManifestMalformed, "manifest_malformed",
        "The manifest is no JSON, or says something that cannot be meant.",
        "Build the patch with `mix hot_patch.build`, or correct the manifest.";
    ManifestDuplicate, "manifest_duplicate",
        "The manifest says something twice.",
        "Correct the manifest: each field, file and module once.";
    ManifestUnknownField, "manifest_unknown_field",
        "The manifest has a field that its schema does not know.",
        "Correct the field's name; what nobody reads must not look as if it counted.";
    ManifestSchema, "manifest_schema",
        "The manifest is written by another version of the schema.",
        "Build the patch with the HotPatch that runs here, or upgrade HotPatch first.";
    ManifestUnlisted, "manifest_unlisted",
        "The archive has a file that its manifest does not list.",
        "Build the patch afresh, do not add files to it.";
    ManifestMissing, "manifest_missing",
        "The manifest lists a file that is not in the archive.",
        "Build the patch afresh, do not take files out of it.";
    ManifestDigest, "manifest_digest",
        "A file is not the one that the manifest lists.",
        "Build the patch afresh, do not change its files.";
    ManifestModule, "manifest_module",
        "A file holds another module, or another version, than the manifest says.",
        "Build the patch afresh with `mix hot_patch.build`.";
    ManifestInstruction, "manifest_instruction",
        "An instruction of the manifest cannot be carried out.",
        "Write it as in an .appup file, in agreement with the patch's files.";
    ManifestConfig, "manifest_config",
        "A setting of the manifest is no constant Erlang term, or there are too many.",
        "Write each value as in a sys.config file: atoms, numbers, strings, binaries, lists, tuples, maps.";
    ManifestUpgrade, "manifest_upgrade",
        "What the manifest says of an upgrade cannot be meant, or its files lie where no upgrade puts any.",
        "Build the upgrade afresh with `mix hot_patch.build`, from two releases.";
    SignatureMalformed, "signature_malformed",
        "The signature of the archive cannot be read.",
        "Sign the patch again.";
    SignatureAlone, "signature_alone",
        "The archive has a signature and no manifest.",
        "Build the patch with `mix hot_patch.build`, which writes a manifest, and sign that.";
}

/// An archive was refused, and nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The rule that was broken.
    pub rule: Rule,
    /// The entry concerned, escaped and shortened: safe to print on a terminal, no path to open.
    pub entry: Option<String>,
    /// What is wrong, with what, and what to do next, in full sentences.
    pub message: String,
}

impl Refusal {
    /// The archive as a whole breaks `rule`; `detail` is a clause without a full stop.
    pub(crate) fn archive(rule: Rule, detail: impl Display) -> Self {
        let message = format!("The archive was refused: {detail}. {}", rule.next_step());
        Refusal { rule, entry: None, message }
    }

    /// The entry `name` breaks `rule`; `detail` is a clause whose subject is the entry.
    pub(crate) fn entry(rule: Rule, name: &[u8], detail: impl Display) -> Self {
        let entry = text::printable(name);
        let message =
            format!("The archive was refused: entry \"{entry}\" {detail}. {}", rule.next_step());
        Refusal { rule, entry: Some(entry), message }
    }

    /// An allocation of `bytes` for `what` failed.
    pub(crate) fn out_of_memory(what: impl Into<Cow<'static, str>>, bytes: usize) -> Self {
        let detail = format!("{bytes} bytes of memory for {} could not be had", what.into());
        Refusal::archive(Rule::OutOfMemory, detail)
    }
}
