//! Arguments, subcommands, exit codes.

pub mod policy;
