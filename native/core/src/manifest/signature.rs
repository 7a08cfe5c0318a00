//! The signature of a patch. It is read here and verified by whoever has keys.

use serde::{Deserialize, Serialize};

use super::{MANIFEST, SIGNATURE, guard};
use crate::refusal::{Refusal, Rule};

/// The only kind there is.
const ALGORITHM: &str = "ed25519";

/// A signature and the key that it claims to be made by, both as Base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// `ed25519`.
    pub algorithm: String,
    /// The public key: 32 bytes.
    pub key: String,
    /// The name of the key, as the one who signed calls it.
    pub name: String,
    /// The signature: 64 bytes.
    pub signature: String,
}

impl Signature {
    /// Reads a signature, or says why it is refused.
    pub fn read(bytes: &[u8]) -> Result<Signature, Refusal> {
        let refuse = |detail: &str| {
            Err(Refusal::entry(Rule::SignatureMalformed, SIGNATURE.as_bytes(), detail))
        };
        let signature: Signature = match guard::read(SIGNATURE, bytes, None) {
            Ok(signature) => signature,
            Err(refusal) => return Err(Refusal { rule: Rule::SignatureMalformed, ..refusal }),
        };
        if signature.algorithm != ALGORITHM {
            return refuse("is made by another algorithm than ed25519");
        }
        if !is_base64(&signature.key, 32) || !is_base64(&signature.signature, 64) {
            return refuse("has a key or a signature of the wrong length");
        }
        if !super::line::is_line(&signature.name, 100) {
            return refuse("has a name that is no line of at most 100 bytes");
        }
        Ok(signature)
    }
}

/// Whether `text` is the Base64 of so many bytes, as far as its length and letters tell.
fn is_base64(text: &str, bytes: usize) -> bool {
    let letters = (bytes * 4).div_ceil(3);
    let (body, padding) = text.split_at_checked(letters).unwrap_or((text, ""));
    body.len() == letters
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        && text.len() == letters.next_multiple_of(4)
        && padding.bytes().all(|byte| byte == b'=')
}

/// Why an archive without a manifest cannot be signed.
pub(crate) fn alone() -> Refusal {
    let detail = format!("signs a manifest, and the archive has no entry \"{MANIFEST}\"");
    Refusal::entry(Rule::SignatureAlone, SIGNATURE.as_bytes(), detail)
}
