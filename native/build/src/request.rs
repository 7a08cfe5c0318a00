//! What is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use hot_patch_core::manifest::{ConfigChange, Finding, Follows, OnLoad, Release, Transition};

/// What to build a patch from, and what its manifest is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The build that runs: a release or its tar, `_build/ENV`, or a folder of applications. Without
    /// it nothing is compared, and [`Request::modules`] says what is taken.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// The repaired build, of any of these kinds.
    pub to: PathBuf,
    /// Only these modules, whether they differ or not.
    #[serde(default)]
    pub modules: Option<Vec<String>>,
    /// Take also modules that differ only in line numbers, debug information or documentation.
    #[serde(default)]
    pub all_differences: bool,
    /// A patch of the version that runs, also where the two are different versions of a release.
    #[serde(default)]
    pub in_place: bool,
    /// The version of the release that runs, where [`Request::from`] boots another.
    #[serde(default)]
    pub running: Option<String>,
    /// The most bytes that a tar may be unpacked to, where it comes from somebody else.
    #[serde(default)]
    pub most_unpacked: Option<u64>,
    /// Applications that an upgrade restarts, where their authors say nothing of how they change.
    #[serde(default)]
    pub restart: Vec<String>,
    /// The release that it is for, where the build that runs does not say it.
    #[serde(default)]
    pub release: Option<Release>,
    /// The patch's name.
    pub name: String,
    /// Who makes it.
    #[serde(default)]
    pub author: Option<String>,
    /// What it is for.
    #[serde(default)]
    pub text: Option<String>,
    /// Whether it takes the place of all patches before it.
    #[serde(default)]
    pub cumulative: bool,
    /// How processes come to the new code.
    #[serde(default)]
    pub transition: Transition,
    /// What becomes of modules that run code when they are loaded.
    #[serde(default)]
    pub on_load: OnLoad,
    /// Changes of the applications' environment.
    #[serde(default)]
    pub config: Vec<ConfigChange>,
    /// What the author accepts, if the analysis finds it: by rule, or by rule and module.
    #[serde(default)]
    pub accepted_findings: Vec<Finding>,
    /// The patch that comes before this one: what it brings counts as running already.
    #[serde(default)]
    pub follows: Option<Follows>,
    /// The OTP release that compiled it, where the build does not say it.
    #[serde(default)]
    pub otp: Option<String>,
    /// Likewise the version of Elixir.
    #[serde(default)]
    pub elixir: Option<String>,
}

impl Request {
    /// Whether a module is of the patch that comes before this one.
    pub(crate) fn is_applied(&self, module: &str) -> bool {
        let follows = self.follows.iter();
        follows.flat_map(|follows| &follows.modules).any(|one| one.name == module)
    }

    /// A request for what differs between two builds.
    pub fn new(from: Option<PathBuf>, to: PathBuf, name: String) -> Self {
        Request {
            from,
            to,
            modules: None,
            all_differences: false,
            in_place: false,
            running: None,
            most_unpacked: None,
            restart: Vec::new(),
            release: None,
            name,
            author: None,
            text: None,
            cumulative: false,
            transition: Transition::default(),
            on_load: OnLoad::default(),
            config: Vec::new(),
            accepted_findings: Vec::new(),
            follows: None,
            otp: None,
            elixir: None,
        }
    }
}
