use http::Method;

use super::*;

fn review(outcome: Outcome) -> Review {
    let target: http::uri::PathAndQuery = "/api/v1/namespaces/a/pods".parse().unwrap();
    let info = RequestInfo::new(&Method::GET, &target).unwrap();
    let user = UserInfo { username: "jane".into(), ..UserInfo::default() };
    Review {
        attributes: RequestAttributes::new(&info, None),
        user,
        pending: None,
        outcome,
        until: Instant::now(),
        metrics: Arc::default(),
    }
}

fn allowed(reason: &str) -> Outcome {
    Ok(Arc::new(Decision { allowed: true, reason: reason.into(), ..Decision::default() }))
}

fn said(code: u16, message: &str) -> Status {
    Status { message: message.into(), ..Status::of_code(code) }
}

#[test]
fn the_decision_follows_from_the_review_and_the_response() {
    let forbidden = r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "a""#;
    let denied = |error: &str| {
        Ok(Arc::new(Decision { evaluation_error: error.into(), ..Decision::default() }))
    };
    let (allow, none) = ("allow RBAC: ok", "");
    for (outcome, code, message, expected) in [
        (allowed("RBAC: ok"), 200, "", allow),
        (allowed("RBAC: ok"), 404, "pods \"x\" not found", allow),
        (allowed(""), 200, "", "allow "),
        // The response counts: the role may have been removed since.
        (allowed("RBAC: ok"), 403, forbidden, "forbid "),
        (Err(Missing::Timeout), 403, forbidden, "forbid "),
        (denied(""), 403, &format!("{forbidden}: RBAC: no role"), "forbid RBAC: no role"),
        // Denied by admission.
        (allowed("RBAC: ok"), 403, "pods \"x\" is forbidden: violates PodSecurity", allow),
        (allowed("RBAC: ok"), 401, "Unauthorized", none),
        (allowed("RBAC: ok"), 429, "", none),
        (allowed("RBAC: ok"), 429, "Cannot evict pod", allow),
        (allowed("RBAC: ok"), 403, r#"User "jane" cannot impersonate resource"#, none),
        (denied("webhook down"), 500, "Internal Server Error", "internal error"),
        (denied(""), 500, "Internal Server Error", none),
        (denied(""), 200, "", none),
        (Err(Missing::Throttled), 200, "", none),
    ] {
        let review = review(outcome);
        let caller = UserInfo { username: "jane".into(), ..UserInfo::default() };
        let annotations = review.annotations(&said(code, message), Some(&caller));
        let values: Vec<_> = annotations.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values.join(" "), expected, "{code} {message}");
    }
}

#[test]
fn reviews_are_shared_and_only_allowed_ones_are_kept() {
    let cache = Cache::new(Duration::from_secs(60));
    let key = [1; 32];
    let Lookup::New(first) = cache.look_up(key) else { panic!("it is known") };
    let Lookup::Pending(waiting) = cache.look_up(key) else { panic!("it is not shared") };
    cache.finish(first, Ok(Arc::default()), true);
    assert!(waiting.borrow().as_ref().unwrap().is_ok());
    let Lookup::New(second) = cache.look_up(key) else { panic!("a denial is kept") };
    cache.finish(second, allowed("r"), false);
    let Lookup::New(third) = cache.look_up(key) else {
        panic!("it is kept in spite of a selector")
    };
    cache.finish(third, allowed("r"), true);
    assert!(matches!(cache.look_up(key), Lookup::Known(known) if known.reason == "r"));
    let Lookup::New(dropped) = cache.look_up([2; 32]) else { panic!("it is known") };
    drop(dropped);
    assert!(matches!(cache.look_up([2; 32]), Lookup::New(_)), "its task is gone");
}

#[test]
fn only_so_many_reviews_are_under_way() {
    let cache = Cache::new(Duration::from_secs(60));
    let mut under_way = Vec::new();
    let key = |number: usize| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    };
    while let Lookup::New(entry) = cache.look_up(key(under_way.len())) {
        under_way.push(entry);
    }
    assert_eq!(under_way.len(), 10_000);
    assert!(matches!(cache.look_up(key(0)), Lookup::Pending(_)));
    assert!(matches!(cache.look_up(key(20_000)), Lookup::Full));
    cache.finish(under_way.remove(0), allowed("r"), true);
    assert!(matches!(cache.look_up(key(0)), Lookup::Known(_)));
    assert!(matches!(cache.look_up(key(20_000)), Lookup::New(_)));
}

#[test]
fn no_time_to_live_keeps_nothing() {
    let cache = Cache::new(Duration::ZERO);
    let Lookup::New(entry) = cache.look_up([1; 32]) else { panic!("it is known") };
    cache.finish(entry, allowed("r"), true);
    assert!(matches!(cache.look_up([1; 32]), Lookup::New(_)));
}
