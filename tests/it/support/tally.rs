//! What a test of a fault has counted, as one line of its output.

use std::fmt;

/// Requests and events of one run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Requests that were sent.
    pub requests: usize,
    /// Events in the log, or at the receiver.
    pub events: usize,
    /// Requests that were answered with 500 because they could not be recorded, or whose answer
    /// broke off for that.
    pub refused: usize,
    /// Events that were lost, by the proxy's own metric.
    pub lost: usize,
}

impl Tally {
    /// Prints it; all such lines are aligned.
    pub fn print(&self, what: &str) {
        println!("{what:<52} {self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { requests, events, refused, lost } = self;
        write!(f, "requests {requests:>7}  events {events:>7}  ")?;
        write!(f, "refused {refused:>5}  lost {lost:>5}")
    }
}
