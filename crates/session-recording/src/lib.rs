//! Recordings of what happens inside `exec`, `attach` and `port-forward` sessions.
//!
//! The proxy passes the bytes of an upgraded connection on, and gives them to a [`Session`], which
//! decodes them and hands them to a writer thread. The thread writes an asciicast v2 file, one per
//! session.
//!
//! | module | contents |
//! |---|---|
//! | [`protocol`] | what a client and the API server have agreed on, and whether it can be read |
//! | [`websocket`], [`channel`] | WebSocket frames and the channel protocols of Kubernetes in them
//! |
//! | [`spdy`] | SPDY/3.1 frames |
//! | [`decoder`] | both directions of a connection as one sequence of [`SessionEvent`]s |
//! | [`cast`] | writes asciicast v2 |
//! | [`recorder`], [`session`] | starts recordings, and records them |
//! | [`files`] | names, salvage after a crash, retention |
//! | [`rules`] | which sessions are recorded |
//! | [`read`], [`transcript`] | reads recordings back |

pub mod cast;
pub mod channel;
pub mod decoder;
mod escape;
pub mod files;
mod inflate;
mod metrics;
pub mod protocol;
pub mod read;
pub mod recorder;
pub mod rules;
mod script;
pub mod session;
pub mod spdy;
mod stream_state;
pub mod transcript;
pub mod websocket;
mod writer;

pub use self::cast::{Description, RecordedUser};
pub use self::decoder::{Decoder, Direction, SessionEvent, Stream};
pub use self::metrics::RecordingMetrics;
pub use self::protocol::{Activity, Codec, Deflate, Protocol, Unsupported};
pub use self::recorder::{Content, Mode, Recorder, Settings};
pub use self::session::{Outcome, Session};

/// Why the bytes of a connection cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub &'static str);
