use std::collections::VecDeque;

use super::*;

/// Accepts at most `chunk` bytes per call, after returning the scripted errors.
#[derive(Default)]
struct Fake {
    bytes: Vec<u8>,
    chunk: usize,
    /// Number of bytes until the output is full.
    room: Option<usize>,
    errors: VecDeque<ErrorKind>,
    calls: usize,
}

impl Fake {
    fn with_chunk(chunk: usize) -> Fake {
        Fake { chunk, ..Fake::default() }
    }
}

impl Write for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls += 1;
        if let Some(error) = self.errors.pop_front() {
            return Err(error.into());
        }
        let room = self.room.map_or(usize::MAX, |room| room - self.bytes.len());
        if room == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = all.len().min(self.chunk).min(room);
        self.bytes.extend(&all[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines() -> Vec<Line> {
    ["one\n", "three\n", "seven\n"].map(|line| line.as_bytes().to_vec().into()).into()
}

const ALL: &[u8] = b"one\nthree\nseven\n";

#[test]
fn many_lines_are_one_call() {
    let mut fake = Fake::with_chunk(usize::MAX);
    let appended = append(&mut fake, &lines(), false);
    assert_eq!((fake.calls, appended.whole, appended.torn), (1, 3, false));
    assert_eq!(fake.bytes, ALL);
}

#[test]
fn short_writes_are_continued() {
    for chunk in 1..ALL.len() {
        let mut fake = Fake::with_chunk(chunk);
        let appended = append(&mut fake, &lines(), false);
        assert_eq!(appended.whole, 3, "{chunk} bytes a call");
        assert!(appended.error.is_none());
        assert_eq!(fake.bytes, ALL);
    }
}

#[test]
fn an_error_returns_the_number_of_complete_lines() {
    // Capacity, number of complete lines, their length.
    for (room, whole, whole_bytes) in
        [(0, 0, 0), (3, 0, 0), (4, 1, 4), (9, 1, 4), (10, 2, 10), (15, 2, 10)]
    {
        let mut fake = Fake { room: Some(room), ..Fake::with_chunk(usize::MAX) };
        let appended = append(&mut fake, &lines(), false);
        assert_eq!(appended.whole, whole, "room for {room}");
        assert_eq!(appended.whole_bytes, whole_bytes);
        assert_eq!(appended.bytes, room as u64);
        assert_eq!(appended.torn, room as u64 > whole_bytes);
        assert_eq!(appended.error.unwrap().kind(), ErrorKind::StorageFull);
    }
}

#[test]
fn a_partial_line_is_terminated_first() {
    let mut fake = Fake::with_chunk(usize::MAX);
    let appended = append(&mut fake, &lines()[..1], true);
    assert_eq!(fake.bytes, b"\none\n");
    assert_eq!((appended.whole, appended.bytes, appended.torn), (1, 5, false));

    let mut full = Fake { room: Some(0), ..Fake::with_chunk(usize::MAX) };
    assert!(append(&mut full, &lines(), true).torn, "nothing was written: it is still torn");
    let mut nearly = Fake { room: Some(1), ..Fake::with_chunk(usize::MAX) };
    let appended = append(&mut nearly, &lines(), true);
    assert_eq!((appended.whole, appended.whole_bytes, appended.torn), (0, 1, false));
}

#[test]
fn interruptions_and_full_pipes_are_no_errors() {
    let errors = [ErrorKind::Interrupted, ErrorKind::WouldBlock, ErrorKind::Interrupted];
    let mut fake = Fake { errors: errors.into(), ..Fake::with_chunk(7) };
    let appended = append(&mut fake, &lines(), false);
    assert!(appended.error.is_none());
    assert_eq!(fake.bytes, ALL);
}

#[test]
fn a_write_of_nothing_is_an_error() {
    let mut fake = Fake::with_chunk(0);
    let appended = append(&mut fake, &lines(), false);
    assert_eq!(appended.error.unwrap().kind(), ErrorKind::WriteZero);
}

#[test]
fn standard_output_without_a_reader_is_an_error() {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    let (mut reader, pipe) = io::pipe().unwrap();
    let mut stdout = Stdout { file: File::from(OwnedFd::from(pipe)), torn: false };
    assert_eq!(stdout.write(&lines()).whole, 3);
    let mut got = [0; ALL.len()];
    reader.read_exact(&mut got).unwrap();
    assert_eq!(got, ALL);
    drop(reader);
    let written = stdout.write(&lines());
    assert_eq!(written.whole, 0);
    assert_eq!(written.error.unwrap().kind(), ErrorKind::BrokenPipe);
}
