//! Configuration files: read without blocking on pipes ([`config_file`], [`regular_file`]), and
//! watched for changes ([`file_watch`]).

pub mod config_file;
pub mod file_watch;
pub mod regular_file;
