//! Copies the bytes of recorded upgraded connections, like `upgrade`, and records them.

use std::io;
use std::time::Duration;

use session_recording::session::RecordingFailed;
use session_recording::{Direction, Session};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, split};

use super::upgrade::{BUFFER, until_closed};

/// Maximum time to wait for the end of the message being sent, before the proxy's own message is
/// sent and the session ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Copies bytes in both directions like `upgrade::pass`, and records them. Ends the session if it
/// must be recorded and cannot be.
pub(super) async fn pass(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    session: &Session,
) {
    let (client_reader, mut client_writer) = split(client);
    let (upstream_reader, mut upstream_writer) = split(upstream);
    let up = async {
        let mut reader = BufReader::with_capacity(BUFFER, client_reader);
        loop {
            let bytes = reader.fill_buf().await?;
            if bytes.is_empty() {
                break;
            }
            if session.push(Direction::FromClient, bytes).is_err() {
                // The other direction sends the message to the client and ends the session.
                return std::future::pending().await;
            }
            upstream_writer.write_all(bytes).await?;
            upstream_writer.flush().await?;
            let passed = bytes.len();
            reader.consume(passed);
            session.ready().await;
        }
        upstream_writer.shutdown().await
    };
    let down = async {
        let mut reader = BufReader::with_capacity(BUFFER, upstream_reader);
        let passed = match pass_down(&mut reader, &mut client_writer, session).await {
            Ok(None) => Ok(()),
            Ok(Some(why)) => end(&mut reader, &mut client_writer, session, &why).await,
            Err(error) => Err(error),
        };
        // Flush what was written, even if reading failed.
        let ended = client_writer.shutdown().await;
        passed.and(ended)
    };
    until_closed(up, down).await;
}

/// Copies bytes to the client until the API server closes the connection or the session must end.
async fn pass_down(
    reader: &mut BufReader<impl AsyncRead + Unpin>,
    writer: &mut (impl AsyncWrite + Unpin),
    session: &Session,
) -> io::Result<Option<RecordingFailed>> {
    let mut must_end = std::pin::pin!(session.must_end());
    loop {
        let bytes = tokio::select! {
            biased;
            why = &mut must_end => return Ok(Some(why)),
            bytes = reader.fill_buf() => bytes?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        if let Err(why) = session.push(Direction::FromServer, bytes) {
            return Ok(Some(why));
        }
        writer.write_all(bytes).await?;
        writer.flush().await?;
        let passed = bytes.len();
        reader.consume(passed);
        session.ready().await;
    }
}

/// Sends the reason for the end of the session to the client, after the message in progress.
async fn end(
    reader: &mut BufReader<impl AsyncRead + Unpin>,
    writer: &mut (impl AsyncWrite + Unpin),
    session: &Session,
    why: &RecordingFailed,
) -> io::Result<()> {
    let mut farewell = session.farewell(why, false);
    let deadline = tokio::time::Instant::now() + FAREWELL;
    while farewell.is_none() {
        let Ok(bytes) = tokio::time::timeout_at(deadline, reader.fill_buf()).await else { break };
        let bytes = bytes?;
        if bytes.is_empty() {
            break;
        }
        let end = session.find_end(bytes);
        let passed = end.unwrap_or(bytes.len());
        writer.write_all(&bytes[..passed]).await?;
        reader.consume(passed);
        if end.is_some() {
            farewell = session.farewell(why, true);
        }
    }
    writer.write_all(&farewell.unwrap_or_default()).await?;
    writer.flush().await
}
