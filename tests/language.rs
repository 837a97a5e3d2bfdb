//! Checks of everything that people read: comment width, phrases that the style of CONTRIBUTING.md
//! rules out, links between documents, and messages that documents quote.

use std::fs;
use std::path::{Path, PathBuf};

/// Phrases that are not used in comments, messages and documents, and what to write instead.
const AVOID: &[(&str, &str)] = &[
    ("nobody", "name the actor, such as \"no client\" or \"unauthenticated\""),
    ("nobody's", "\"invalid\" or \"unauthenticated\""),
    ("somebody", "name the actor, such as \"an attacker\" or \"another process\""),
    ("somebody's", "name the actor"),
    ("as by", "\"like\""),
    ("be it", "\"such as\" or \"whether\""),
    ("read again", "\"reloaded\""),
    ("in force", "\"active\""),
    ("anew", "\"again\", or \"recreate\""),
    ("no good", "\"invalid\""),
    ("mended", "\"repaired\""),
    ("remembered", "\"cached\""),
    ("judge", "\"evaluate\" or \"authorize\""),
    ("judged", "\"evaluated\" or \"authorized\""),
    ("judges", "\"evaluates\" or \"authorizes\""),
    ("believe", "\"trust\""),
    ("believed", "\"trusted\""),
    ("believes", "\"trusts\""),
    ("for ever", "\"forever\" or \"indefinitely\""),
    ("farther", "\"behind\" or \"after\""),
    ("in vain", "\"without success\""),
    ("lookalike", "\"similar\""),
    ("lookalikes", "\"similar names\""),
    ("is told", "\"receives\" or \"is notified\""),
    ("are told", "\"receive\" or \"are notified\""),
    ("was told", "\"received\" or \"was notified\""),
    ("is well", "\"is healthy\""),
    ("found out", "\"detected\" or \"determined\""),
    ("finds out", "\"detects\" or \"determines\""),
    ("find out", "\"detect\" or \"determine\""),
    ("ends TLS", "\"terminates TLS\""),
    ("tells of", "\"logs\" or \"reports\""),
    ("floor", "\"module\" or \"layer\""),
    ("house", "\"module\" or \"crate\""),
];
