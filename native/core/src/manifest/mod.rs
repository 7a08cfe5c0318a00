//! The manifest of a patch: what the one who built it says of it.
//!
//! It is the entry [`MANIFEST`] of the archive, JSON, and must cover exactly the archive's files,
//! each with its SHA-256. Beside it may be a [`Signature`] in the entry [`SIGNATURE`]. Neither is
//! a file of the patch: they are read here and never carried to disk.

mod check;
mod guard;
mod hex;
mod instructions;
mod line;
mod signature;
mod upgrade;

use serde::{Deserialize, Serialize};

pub use hex::Hex;
pub use signature::Signature;
pub(crate) use signature::alone;
pub use upgrade::{Application, Relup, Shared, Upgrade, folder_digest};
pub use upgrade::{LONGEST_REMARK, MOST_REMARKS};

use crate::refusal::Refusal;
use hot_patch_beam::Module;
use hot_patch_beam::etf;

/// The name of the manifest's entry.
pub const MANIFEST: &str = "hot_patch.json";

/// The name of the signature's entry.
pub const SIGNATURE: &str = "hot_patch.sig";

/// The version of the schema that is written and read here.
pub const SCHEMA: u32 = 1;

/// What a patch is, and what it was made against.
///
/// Fields may be added under a new number of the schema only: what is not known is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The patch's name.
    pub name: String,
    /// The release it is for; none for a system that is no release.
    #[serde(default)]
    pub release: Option<Release>,
    /// The next version of that release, for an archive that takes the system there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// With what it was built.
    #[serde(default)]
    pub built_with: BuiltWith,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub text: Option<String>,
    /// Whether it takes the place of all patches before it.
    #[serde(default)]
    pub cumulative: bool,
    /// How processes come to the new code, unless the operator says otherwise.
    #[serde(default)]
    pub transition: Transition,
    /// What becomes of modules that run code when they are loaded, unless the operator says
    /// otherwise.
    #[serde(default)]
    pub on_load: OnLoad,
    /// The files of the archive.
    pub files: Vec<FileEntry>,
    /// Files that the patch takes away.
    #[serde(default)]
    pub removed: Vec<RemovedEntry>,
    /// Names of modules in the order in which they are to be loaded.
    #[serde(default)]
    pub load_order: Vec<String>,
    /// What is to be done, in the terms of an appup.
    #[serde(default)]
    pub instructions: Instructions,
    /// Changes of the applications' environment, made in the same step.
    #[serde(default)]
    pub config: Vec<ConfigChange>,
    /// What the analysis has found and the author has accepted.
    #[serde(default)]
    pub accepted_findings: Vec<Finding>,
    /// The patch that has to be in force before this one, and as long as this one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Follows>,
}

/// The first of two patches, by what it brings: so it counts too where a build brings the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follows {
    /// Its name.
    pub name: String,
    /// The modules that have to run.
    pub modules: Vec<NeededModule>,
}

/// A module that has to run in a certain version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeededModule {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Versions of what made the code, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltWith {
    /// The OTP release, such as `25`.
    #[serde(default)]
    pub otp: Option<String>,
    /// The version of Elixir.
    #[serde(default)]
    pub elixir: Option<String>,
    /// The version of HotPatch.
    #[serde(default)]
    pub hot_patch: Option<String>,
}

/// How processes come to the new code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// All stand still while their states are converted.
    #[default]
    Suspend,
    /// Nobody stands still: no state changes its format.
    None,
    /// Each converts its state in its turn after the load.
    Compatible,
}

/// What becomes of modules that run code when they are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoad {
    /// They wait for the node's restart.
    #[default]
    Restart,
    /// They are loaded one by one before the others.
    Load,
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the archive.
    pub path: String,
    /// The SHA-256 of its bytes.
    pub sha256: Hex<32>,
    /// What it is, if it is a module.
    #[serde(default)]
    pub module: Option<ModuleEntry>,
}

/// A module, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleEntry {
    /// Its name.
    pub name: String,
    /// What the patch does with it.
    pub change: Change,
    /// The version it takes the place of, for [`Change::Replace`].
    #[serde(default)]
    pub replaces: Option<Version>,
    /// The version it brings.
    pub brings: Version,
}

/// What a patch does with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The module is new.
    Add,
    /// It takes the place of one certain version.
    Replace,
    /// It takes the place of whatever is there: the base was not known to the one who built it.
    Any,
}

/// What tells two versions of a module apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// What `code:module_md5/1` gives.
    pub md5: Hex<16>,
    /// The value of the attribute `vsn` as text, see [`etf::to_text`]; none if it has no such
    /// attribute, or one that has no text.
    #[serde(default)]
    pub vsn: Option<String>,
}

/// A file that the patch takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedEntry {
    /// Its path, written as those of the archive are.
    pub path: String,
    /// What it is, if it is a module.
    #[serde(default)]
    pub module: Option<RemovedModule>,
}

/// A module that the patch takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedModule {
    /// Its name.
    pub name: String,
    /// The version that is taken away.
    pub replaces: Version,
}

/// Appup instructions, each the text of an Erlang term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// Towards the patched code.
    #[serde(default)]
    pub up: Vec<String>,
    /// And back.
    #[serde(default)]
    pub down: Vec<String>,
}

/// A change of an application's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// The application's name.
    pub application: String,
    /// The key.
    pub key: String,
    /// The value, as the text of an Erlang term.
    pub value: String,
}

/// Something the analysis of a change has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The name of the rule that has found it.
    pub rule: String,
    /// The module it was found in.
    #[serde(default)]
    pub module: Option<String>,
    /// Why it was accepted.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A manifest and the very bytes it was read from, which are what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The entry.
    pub bytes: Vec<u8>,
    /// What it says.
    pub manifest: Manifest,
}

impl Manifest {
    /// Reads a manifest, or says by which rule it is refused. That it covers the files of its
    /// archive is another check.
    pub fn read(bytes: &[u8]) -> Result<Manifest, Refusal> {
        guard::read(MANIFEST, bytes, Some(SCHEMA)).and_then(|manifest: Manifest| {
            check::values(&manifest)?;
            Ok(manifest)
        })
    }

    /// The manifest as JSON, always the same bytes for the same content.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers, lists: nothing in it can fail to be written.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

impl Version {
    /// That of a module.
    pub fn of(module: &Module) -> Version {
        Version { md5: Hex(module.md5), vsn: module.vsn.as_deref().and_then(etf::encoded_to_text) }
    }
}
