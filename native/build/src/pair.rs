//! One file in both builds, and how the two differ.

use std::borrow::Cow;

use hot_patch_beam::{ChunkId, Judge, LoadLimits, Module, Reading};

use crate::changes::{Build, Change};
use crate::error::Error;
use crate::request::Request;
use crate::side::{Key, Side};
use crate::tree::Content;

/// A file that at least one of two builds has.
pub(crate) struct Pair<'s> {
    pub(crate) key: &'s Key,
    pub(crate) path: String,
    /// The former path of a module that moves.
    pub(crate) moved_from: Option<String>,
    pub(crate) before: Option<&'s Content>,
    pub(crate) after: Option<&'s Content>,
}

/// How the two files of a pair differ.
pub(crate) enum Verdict {
    Same,
    /// Only in what does not change how the module runs.
    Inessential,
    Changed(Box<Change>),
    /// Settings, which no patch carries as files.
    Settings,
}

impl Pair<'_> {
    /// How they differ. With `take_all` also what does not change how a module runs is a change.
    pub(crate) fn compare(
        &self,
        significant: &[ChunkId],
        take_all: bool,
    ) -> Result<Verdict, Error> {
        let (before, after) = match (self.before, self.after) {
            (Some(before), Some(after)) => (before, after),
            _ => return self.one_sided(significant),
        };
        let moves = self.moved_from.is_some();
        let (old, new) = (before.read()?, after.read()?);
        if old == new && !moves {
            return Ok(Verdict::Same);
        }
        if matches!(self.key, Key::Settings(_)) {
            return Ok(Verdict::Settings);
        }
        let old = self.build(before, old, significant)?;
        let new = self.build(after, new, significant)?;
        if !(take_all || moves) && is_same_code(old.module.as_deref(), new.module.as_deref()) {
            return Ok(Verdict::Inessential);
        }
        Ok(self.changed(Some(old), Some(new)))
    }

    /// Whether both builds have it, and nothing is lost if one is taken for the other.
    pub(crate) fn is_same(&self, significant: &[ChunkId]) -> Result<bool, Error> {
        let (Some(before), Some(after)) = (self.before, self.after) else { return Ok(false) };
        let (old, new) = (before.read()?, after.read()?);
        if old == new {
            return Ok(true);
        }
        let module = |bytes: &[u8]| self.module(bytes, significant);
        Ok(is_same_code(module(&old)?.as_deref(), module(&new)?.as_deref()))
    }

    fn one_sided(&self, significant: &[ChunkId]) -> Result<Verdict, Error> {
        if matches!(self.key, Key::Settings(_)) {
            return Ok(Verdict::Settings);
        }
        let read = |content: &Content| self.read(content, significant);
        Ok(self.changed(self.before.map(read).transpose()?, self.after.map(read).transpose()?))
    }

    fn changed(&self, before: Option<Build>, after: Option<Build>) -> Verdict {
        let path = self.path.clone();
        let moved_from = self.moved_from.clone();
        let (picked, unchanged) = (false, false);
        Verdict::Changed(Box::new(Change { path, moved_from, before, after, picked, unchanged }))
    }

    /// One of them as a file of a build.
    pub(crate) fn read(&self, content: &Content, significant: &[ChunkId]) -> Result<Build, Error> {
        self.build(content, content.read()?, significant)
    }

    fn build(
        &self,
        content: &Content,
        bytes: Cow<'_, [u8]>,
        significant: &[ChunkId],
    ) -> Result<Build, Error> {
        let module = self.module(&bytes, significant)?;
        Ok(Build { module, bytes: bytes.into_owned(), executable: content.executable })
    }

    fn module(&self, bytes: &[u8], significant: &[ChunkId]) -> Result<Option<Box<Module>>, Error> {
        module(&self.path, bytes, significant)
    }
}

/// The module that a file of a build has; none if it is another file.
pub(crate) fn module(
    path: &str,
    bytes: &[u8],
    significant: &[ChunkId],
) -> Result<Option<Box<Module>>, Error> {
    // The builds are the caller's own, so nothing but memory bounds what is unpacked.
    let limits = LoadLimits::default();
    let damaged = |what: String| Err(Error::Damaged { file: path.to_owned(), what });
    match Judge::new(&limits, significant, u64::MAX, 0).read_file(path, bytes) {
        Reading::Module(module) => Ok(Some(module)),
        Reading::Other => Ok(None),
        Reading::Damaged(damage) => damaged(damage.to_string()),
        Reading::OverBudget => damaged("It does not fit into memory.".to_owned()),
    }
}

/// The MD5 covers all that the VM loads but attributes; of these `vsn` tells versions apart.
pub(crate) fn is_same_code(old: Option<&Module>, new: Option<&Module>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.md5 == new.md5 && old.vsn == new.vsn,
        _ => false,
    }
}

/// The path in the archive: as nodes that run the first build have it.
pub(crate) fn path(key: &Key, from: &Side, request: &Request) -> Option<String> {
    let versioned = from.is_release() || request.release.is_some();
    Some(match key {
        Key::Of { application, below } => {
            let known = from.applications.get(application)?;
            match (&known.version, versioned) {
                (Some(version), true) => format!("{application}-{version}/{below}"),
                _ => format!("{}/{below}", known.folder),
            }
        }
        Key::Consolidated(file) => match &request.release {
            Some(release) if !from.is_release() => {
                format!("releases/{}/consolidated/{file}", release.version)
            }
            _ => format!("{}/{file}", from.consolidated.as_deref()?),
        },
        Key::Settings(file) | Key::OfRelease(file) => file.clone(),
    })
}
