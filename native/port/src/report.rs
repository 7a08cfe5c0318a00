//! What is said about an archive, in a form that also makes the JSON.

use std::fmt::Write as _;
use std::path::Path;

use hot_patch_core::{Composition, File, Kind, Refusal};
use serde::Serialize;

/// One archive.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) archive: String,
    pub(crate) sha256: Option<String>,
    pub(crate) size: Option<u64>,
    pub(crate) files: Vec<FileReport>,
    /// The paths of what the Mac adds to archives: checked as all else, and no part of the patch.
    pub(crate) left_out: Vec<String>,
    pub(crate) refusal: Option<RefusalReport>,
}

/// One file of an accepted archive.
#[derive(Debug, Serialize)]
pub(crate) struct FileReport {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) size: usize,
    pub(crate) crc32: u32,
    pub(crate) sha256: String,
    /// The rule that a damaged file breaks.
    pub(crate) rule: Option<&'static str>,
    /// Why the file is damaged.
    pub(crate) reason: Option<String>,
    #[serde(flatten)]
    pub(crate) module: Option<ModuleReport>,
}

/// What there is to say about a module.
#[derive(Debug, Serialize)]
pub(crate) struct ModuleReport {
    pub(crate) module: String,
    pub(crate) md5: String,
    pub(crate) needs_otp: Option<u32>,
    pub(crate) compiler: Option<String>,
    pub(crate) behaviours: Vec<String>,
    pub(crate) on_load: bool,
    pub(crate) load_nif: bool,
}

/// Why an archive is refused.
#[derive(Debug, Serialize)]
pub(crate) struct RefusalReport {
    pub(crate) rule: &'static str,
    pub(crate) entry: Option<String>,
    pub(crate) message: String,
}

impl Report {
    pub(crate) fn new(path: &Path, outcome: &Result<Composition<'_>, Refusal>) -> Self {
        let archive = path.display().to_string();
        match outcome {
            Ok(composition) => Report {
                archive,
                sha256: Some(hex(&composition.sha256)),
                size: Some(composition.size),
                files: composition.files.iter().map(FileReport::new).collect(),
                left_out: left_out(composition),
                refusal: None,
            },
            Err(refusal) => Report {
                archive,
                sha256: None,
                size: None,
                files: Vec::new(),
                left_out: Vec::new(),
                refusal: Some(RefusalReport::new(refusal)),
            },
        }
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.refusal.is_none()
    }
}

impl RefusalReport {
    pub(crate) fn new(refusal: &Refusal) -> Self {
        RefusalReport {
            rule: refusal.rule.name(),
            entry: refusal.entry.clone(),
            message: refusal.message.clone(),
        }
    }
}

impl FileReport {
    fn new(file: &File<'_>) -> Self {
        let (kind, fault, module) = match &file.kind {
            Kind::Other => ("other", None, None),
            Kind::Damaged(fault) => ("damaged", Some(fault), None),
            Kind::Beam(module) => {
                let module = ModuleReport {
                    module: module.name().to_owned(),
                    md5: hex(&module.md5),
                    needs_otp: module.needs_otp,
                    compiler: module.compiler.clone(),
                    behaviours: module.behaviours.clone(),
                    on_load: module.on_load,
                    load_nif: module.load_nif,
                };
                ("beam", None, Some(module))
            }
        };
        FileReport {
            path: file.path.to_owned(),
            kind,
            size: file.bytes.len(),
            crc32: file.crc32,
            sha256: hex(&file.sha256),
            rule: fault.map(|fault| fault.rule),
            reason: fault.map(|fault| fault.reason.clone()),
            module,
        }
    }
}

/// The paths that are left out of an archive.
pub(crate) fn left_out(composition: &Composition<'_>) -> Vec<String> {
    composition.left_out.iter().map(|path| (*path).to_owned()).collect()
}

/// The same in lines for people.
pub(crate) fn render_left_out(paths: &[String]) -> String {
    let lines = paths.iter().map(|path| format!("  {path}: left out, as the Mac has added it\n"));
    lines.collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
