//! Splits a batch in halves if the destination rejects it as too large.

use std::ops::Range;

use super::attempt::{Failure, Format};

/// The outcome of sending one list.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The endpoint accepted it.
    Taken,
    /// The endpoint rejected it as too large.
    TooLarge(Failure),
    /// The endpoint did not accept it, and it will not be sent again.
    Refused(Failure),
    /// The process shuts down.
    Stopped,
}

/// The outcome of sending a list and its parts.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// The endpoint accepted all of it.
    All,
    /// The endpoint did not accept some events.
    Refused {
        /// A list of these events; `None` for the whole list.
        list: Option<Vec<u8>>,
        /// Their number.
        events: u64,
        /// The reason for the last of them.
        failure: Failure,
    },
    /// The process shuts down; which parts were accepted is not known.
    Stopped,
}

/// Sends a batch of `events` events with `send`. Splits parts that are too large until they are
/// accepted or consist of a single event. The order of the events is preserved.
pub(crate) async fn deliver<F: Future<Output = Sent>>(
    format: &Format,
    list: &[u8],
    events: u64,
    mut send: impl FnMut(Vec<u8>, u64) -> F,
) -> Delivered {
    let whole = |failure| Delivered::Refused { list: None, events, failure };
    let first = match send(list.to_vec(), events).await {
        Sent::Taken => return Delivered::All,
        Sent::Stopped => return Delivered::Stopped,
        Sent::Refused(failure) => return whole(failure),
        Sent::TooLarge(failure) => failure,
    };
    let items = match (format.items)(list) {
        Some(items) if items.len() > 1 => items,
        _ => return whole(first),
    };
    // The first half is sent first.
    let mut parts: Vec<Range<usize>> = Vec::new();
    halve(0..items.len(), &mut parts);
    let mut refused: Vec<&[u8]> = Vec::new();
    let mut last = first;
    while let Some(part) = parts.pop() {
        let content = (format.join)(&items[part.clone()]);
        match send(content, part.len() as u64).await {
            Sent::Taken => {}
            Sent::Stopped => return Delivered::Stopped,
            Sent::TooLarge(_) if part.len() > 1 => halve(part, &mut parts),
            Sent::TooLarge(failure) | Sent::Refused(failure) => {
                refused.extend(&items[part]);
                last = failure;
            }
        }
    }
    match refused.len() {
        0 => Delivered::All,
        count if count == items.len() => whole(last),
        count => Delivered::Refused {
            list: Some((format.join)(&refused)),
            events: count as u64,
            failure: last,
        },
    }
}

fn halve(part: Range<usize>, parts: &mut Vec<Range<usize>>) {
    let middle = part.start + part.len().div_ceil(2);
    parts.push(middle..part.end);
    parts.push(part.start..middle);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::Line;
    use crate::webhook::list;

    fn list(sizes: &[usize]) -> Vec<u8> {
        let line = |(number, size): (usize, &usize)| -> Line {
            format!("{{\"id\":{number},\"x\":\"{}\"}}\n", "x".repeat(*size)).into_bytes().into()
        };
        list::encode(&sizes.iter().enumerate().map(line).collect::<Vec<_>>())
    }

    fn ids(list: &[u8]) -> Vec<u64> {
        let id = |item: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(item).unwrap()["id"].as_u64().unwrap()
        };
        list::items(list).unwrap().into_iter().map(id).collect()
    }

    /// Delivers to an endpoint that accepts at most `limit` bytes. Returns the accepted events,
    /// too.
    async fn through(list: &[u8], limit: usize) -> (Delivered, Vec<u64>) {
        let accepted = Mutex::new(Vec::new());
        let events = ids(list).len() as u64;
        let delivered = deliver(&list::FORMAT, list, events, async |list: Vec<u8>, count: u64| {
            let ids = ids(&list);
            assert_eq!(ids.len() as u64, count);
            if list.len() > limit {
                return Sent::TooLarge(Failure("too large".into()));
            }
            accepted.lock().unwrap().extend(ids);
            Sent::Taken
        });
        (delivered.await, accepted.into_inner().unwrap())
    }

    #[tokio::test]
    async fn what_is_too_large_is_halved_down_to_one_event() {
        let (delivered, accepted) = through(&list(&[9; 10]), 10_000).await;
        assert!(matches!(delivered, Delivered::All));
        assert_eq!(accepted, (0..10).collect::<Vec<_>>());

        let (delivered, accepted) = through(&list(&[100; 7]), 330).await;
        assert!(matches!(delivered, Delivered::All));
        assert_eq!(accepted, (0..7).collect::<Vec<_>>(), "in order");

        let (delivered, accepted) = through(&list(&[9, 9, 1000, 9, 1000]), 330).await;
        let Delivered::Refused { list: Some(refused), events: 2, .. } = delivered else {
            panic!("{delivered:?}");
        };
        assert_eq!((ids(&refused), accepted), (vec![2, 4], vec![0, 1, 3]));

        let (delivered, accepted) = through(&list(&[1000; 3]), 330).await;
        assert!(matches!(delivered, Delivered::Refused { list: None, events: 3, .. }));
        assert_eq!(accepted, Vec::<u64>::new());
    }
}
