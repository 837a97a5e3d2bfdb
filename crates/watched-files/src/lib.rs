//! Configuration files: read without blocking on pipes ([`regular_file`]), and watched for changes
//! ([`file_watch`]).

pub mod file_watch;
pub mod regular_file;
#[cfg(test)]
#[path = "../../../src/test_dir.rs"]
mod test_dir;
