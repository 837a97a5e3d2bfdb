use super::*;

mod faults;
mod missing;
mod sealed_log;
mod state;
mod tamper;
