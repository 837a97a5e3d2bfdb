//! Files with a Kubernetes object in them, YAML or JSON, read as kube-apiserver reads them: from
//! bytes to a tree that knows lines and columns, and problems that name them.
//!
//! | file | what it does |
//! |---|---|
//! | `text`, `yaml`, `yaml_1_1`, `scalar`, `json` | from bytes to a tree |
//! | `tree` | the tree |
//! | `schema` | types and unknown members |
//! | `problem` | messages |

mod json;
pub(crate) mod problem;
mod scalar;
pub(crate) mod schema;
mod text;
pub(crate) mod tree;
mod yaml;
mod yaml_1_1;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use problem::Problem;
pub use tree::Position;

use tree::{Document, SyntaxError};

use crate::regular_file;

/// Nothing that is read here is that long; a log file named by mistake can be.
const MAX_SIZE: u64 = 8 << 20;

/// The bytes of the file that holds a `what`.
///
/// # Errors
/// It cannot be read, or is longer than 8 MiB.
pub(crate) fn read(path: &Path, what: &str) -> io::Result<Vec<u8>> {
    read_open(regular_file::open(path)?, what)
}

/// Like [`read`], but also reads pipes, and waits for their writers: for commands that check a file
/// once, as in `policy check <(kustomize build)`.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_any(path: &Path, what: &str) -> io::Result<Vec<u8>> {
    read_open(File::open(path)?, what)
}

fn read_open(file: File, what: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if size as u64 > MAX_SIZE {
        let message = format!("it is longer than 8 MiB, which no {what} is");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// The tree of a YAML or JSON text.
///
/// # Errors
/// It is neither.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, SyntaxError> {
    if String::from_utf8_lossy(bytes).trim_start().starts_with('{') {
        let prefixed = |problem: SyntaxError| SyntaxError {
            message: format!("couldn't get version/kind; json parse error: {}", problem.message),
            ..problem
        };
        json::parse(bytes).map_err(prefixed)
    } else {
        yaml::parse(&text::decode(bytes)?)
    }
}
