use std::sync::Arc;

use super::*;
use crate::commit::Progress;

/// Records the bytes that are written.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    ended: bool,
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = self.bytes.len();
        slices.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        Poll::Ready(Ok(self.bytes.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

fn gated() -> (Arc<Progress>, CommitSequence, GatedIo<Wire>) {
    let log = Arc::new(Progress::default());
    let sequence = CommitSequence::here([log.clone()]);
    (log, sequence.clone(), GatedIo::new(Wire::default(), sequence))
}

fn context() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

#[test]
fn what_is_written_waits_for_the_log_and_so_does_the_end() {
    let (log, sequence, mut stream) = gated();
    sequence.accept(0);
    assert!(Pin::new(&mut stream).poll_write(&mut context(), b"answer").is_pending());
    assert!(
        Pin::new(&mut stream).poll_flush(&mut context()).is_ready(),
        "there is nothing to flush"
    );
    assert!(stream.stream.bytes.is_empty());
    log.commit(1);
    let written = Pin::new(&mut stream).poll_write(&mut context(), b"answer");
    assert!(matches!(written, Poll::Ready(Ok(6))));
    assert_eq!(stream.stream.bytes, b"answer");
    sequence.accept(0);
    assert!(Pin::new(&mut stream).poll_shutdown(&mut context()).is_pending());
    assert!(!stream.stream.ended);
    log.commit(1);
    assert!(Pin::new(&mut stream).poll_shutdown(&mut context()).is_ready());
    assert!(stream.stream.ended);
}

#[test]
fn slices_with_committed_events_are_written() {
    let (log, sequence, mut stream) = gated();
    let slices = [b"".as_slice(), b"he", b"ad", b"body", b"next"].map(IoSlice::new);
    let mut write = |first: usize| {
        sequence.accept(0);
        let write = Pin::new(&mut stream).poll_write_vectored(&mut context(), &slices[..first]);
        assert!(write.is_pending());
        sequence.accept(0);
        log.commit(1);
        let write = Pin::new(&mut stream).poll_write_vectored(&mut context(), &slices);
        log.commit(1);
        let written = std::mem::take(&mut stream.stream.bytes);
        assert!(matches!(write, Poll::Ready(Ok(bytes)) if bytes == written.len()));
        written
    };
    assert_eq!(write(2), b"he");
    assert_eq!(write(4), b"headbody");
    assert_eq!(write(5), b"headbodynext");
    let mut first = [IoSlice::new(&[]); SLICES];
    assert_eq!(first_bytes(&slices, 5, &mut first), 3);
    assert_eq!(&*first[2], b"b");
}
