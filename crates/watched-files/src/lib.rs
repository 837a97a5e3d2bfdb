//! Configuration files: read without blocking on pipes ([`config_file`], [`regular_file`]),
//! watched for changes ([`file_watch`]), and reloaded ([`reload`]).

pub mod config_file;
pub mod file_watch;
pub mod regular_file;
pub mod reload;
