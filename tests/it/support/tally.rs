//! The counts of a fault test, printed as one line.

use std::fmt;

/// Requests and events of one run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Requests that were sent.
    pub requests: usize,
    /// Events in the log, or at the webhook endpoint.
    pub events: usize,
    /// Requests that got a 500, or whose response was aborted, because they could not be recorded.
    pub refused: usize,
    /// Lost events, according to the proxy's own metric.
    pub lost: usize,
}

impl Tally {
    /// Prints the counts, aligned with other lines of this kind.
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
