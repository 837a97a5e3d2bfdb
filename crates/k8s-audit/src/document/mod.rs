//! Parses YAML and JSON documents that hold a Kubernetes object.
//!
//! A document is accepted if kube-apiserver accepts it, and yields the same values. The tree keeps
//! the line and column of every value and key, so that a [`Diagnostic`] can name them.
//!
//! | file | contents |
//! |---|---|
//! | `text`, `yaml`, `yaml_1_1`, `scalar`, `json` | parse bytes to a tree |
//! | [`tree`] | the tree |
//! | [`schema`] | checks types and detects unknown members |
//! | [`diagnostic`] | errors and warnings |

pub mod diagnostic;
mod json;
pub mod scalar;
pub mod schema;
mod text;
pub mod tree;
mod yaml;
mod yaml_1_1;

pub use diagnostic::Diagnostic;
pub use tree::Position;

use tree::{Document, SyntaxError};

/// Parses a text: JSON if it starts with `{`, YAML otherwise.
///
/// # Errors
/// Returns a [`SyntaxError`] if kube-apiserver's decoder would reject the text.
pub fn parse(bytes: &[u8]) -> Result<Document, SyntaxError> {
    if String::from_utf8_lossy(bytes).trim_start().starts_with('{') {
        let prefixed = |error: SyntaxError| SyntaxError {
            message: format!("couldn't get version/kind; json parse error: {}", error.message),
            ..error
        };
        json::parse(bytes).map_err(prefixed)
    } else {
        yaml::parse(&text::decode(bytes)?)
    }
}
