use super::*;

fn info(method: &str, uri: &str) -> Result<RequestInfo, InfoError> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    RequestInfo::new(&method, &PathAndQuery::try_from(uri).unwrap())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// method, path, "verb group version namespace resource subresource name", `-` for empty.
const RESOURCES: &[(&str, &str, &str)] = &[
    ("GET", "/api/v1/namespaces", "list - v1 - namespaces - -"),
    ("GET", "/api/v1/namespaces/other", "get - v1 other namespaces - other"),
    ("GET", "/api/v1/namespaces/other/pods", "list - v1 other pods - -"),
    ("GET", "/api/v1/namespaces/other/pods/foo", "get - v1 other pods - foo"),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", "get - v1 other pods - foo"),
    ("HEAD", "/api/v1/pods", "list - v1 - pods - -"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy - v1 other pods - foo"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo/sub/p", "proxy - v1 other pods - foo"),
    ("GET", "/api/v1/watch/pods", "watch - v1 - pods - -"),
    ("DELETE", "/api/v1/watch/pods", "watch - v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=true", "watch - v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=false", "list - v1 - pods - -"),
    ("GET", "/api/v1/watch/namespaces/other/pods", "watch - v1 other pods - -"),
    ("GET", "/api/v1/namespaces/other/pods?watch=1", "watch - v1 other pods - -"),
    ("GET", "/api/v1/namespaces/other/pods?watch=0", "list - v1 other pods - -"),
    ("GET", "/api/v1/namespaces/other/pods/foo/status", "get - v1 other pods status foo"),
    ("GET", "/api/v1/namespaces/other/pods/foo/proxy/subpath", "get - v1 other pods proxy foo"),
    ("PUT", "/api/v1/namespaces/other/finalize", "update - v1 other namespaces finalize other"),
    ("PUT", "/api/v1/namespaces/other/status", "update - v1 other namespaces status other"),
    ("GET", "/api/v1/namespaces/a/status/x", "get - v1 a namespaces status a"),
    ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch - v1 other pods - foo"),
    ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete - v1 other pods - foo"),
    ("POST", "/api/v1/namespaces/other/pods", "create - v1 other pods - -"),
    ("DELETE", "/api/v1/nodes", "deletecollection - v1 - nodes - -"),
    ("DELETE", "/apis/ext/v1/namespaces/o/pods", "deletecollection ext v1 o pods - -"),
    ("POST", "/apis/ext/v1beta3/namespaces/o/pods", "create ext v1beta3 o pods - -"),
    // Unusual encodings.
    ("GET", "/api/v1/namespaces/a/pods/x%2Flog", "get - v1 a pods log x"),
    ("GET", "/api//v1/pods", "get - - - v1 - pods"),
    ("GET", "/api/v1/namespaces/a//pods", "get - v1 a - - pods"),
    ("GET", "//api/v1/pods/", "list - v1 - pods - -"),
    ("GET", "/%61pi/v1/pods", "list - v1 - pods - -"),
    ("GET", "/api/v1/watch/namespaces", "watch - v1 - namespaces - -"),
    ("GET", "/api/v1/namespaces/a/pods/x?watch=true", "get - v1 a pods - x"),
    ("OPTIONS", "/api/v1/pods", "- - v1 - pods - -"),
    ("get", "/api/v1/pods", "- - v1 - pods - -"),
    // Options of collection requests.
    ("GET", "/api/v1/pods?watch", "watch - v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=FALSE", "list - v1 - pods - -"),
    ("GET", "/api/v1/pods?limit=abc&watch=no", "watch - v1 - pods - -"),
    ("GET", "/api/v1/pods?limit=&watch=1", "watch - v1 - pods - -"),
    ("GET", "/api/v1/pods?limit=abc&fieldSelector=metadata.name=x", "list - v1 - pods - -"),
    ("GET", "/api/v1/pods?labelSelector=a b&fieldSelector=metadata.name=x", ""),
    ("GET", "/api/v1/pods?labelSelector=a,&fieldSelector=metadata.name=x", "list - v1 - pods - -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name=..", "list - v1 - pods - -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name==x,spec.n!=n", "list - v1 - pods - x"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name=x,metadata.name=b", "list - v1 - pods - b"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name!=x", "list - v1 - pods - -"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name=x,foo&watch=1", "watch - v1 - pods - -"),
    ("GET", "/api/v1/pods?watch=true&fieldSelector=metadata.name=n", "watch - v1 - pods - n"),
    ("GET", "/api/v1/watch/pods?fieldSelector=metadata.name=n", "watch - v1 - pods - -"),
];

#[test]
fn resource_requests() {
    for (method, uri, expected) in RESOURCES {
        let Ok(target) = PathAndQuery::try_from(*uri) else {
            assert_eq!(*expected, "", "{uri} is no request target");
            continue;
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let info = RequestInfo::new(&method, &target).unwrap();
        assert!(info.is_resource(), "{method} {uri}");
        let dash = |part: &[u8]| if part.is_empty() { "-".to_owned() } else { text(part).into() };
        let parts = [
            dash(info.verb().as_bytes()),
            dash(info.group()),
            dash(info.version()),
            dash(info.namespace()),
            dash(info.resource()),
            dash(info.subresource()),
            dash(info.name()),
        ];
        assert_eq!(parts.join(" "), *expected, "{method} {uri}");
    }
}

#[test]
fn which_paths_are_resources() {
    let resources = [
        "/api/version/resource",
        "/apis/group/version/resource/name/subresource",
        "/api/version/resource/name/subresource",
        "/apis/batch/v1/job",
        "/apis/batch/v1/job/foo/scale",
    ];
    for path in resources {
        assert!(info("GET", path).unwrap().is_resource(), "{path}");
    }
    let others = [
        "/not-api/version/resource",
        "/apis/extensions/v1beta1",
        "/apis/extensions/v1beta1/",
        "/apis/group/version/",
        "/apis/version/resource",
        "/api/version",
        "/api/version/",
        "/api",
        "/",
        "/API/v1/pods",
        "/openapi/v3/apis/apps/v1",
        "*",
        "//",
    ];
    for path in others {
        let info = info("GET", path).unwrap();
        assert!(!info.is_resource(), "{path}");
        assert_eq!((info.verb(), info.path()), ("get", path.as_bytes()));
    }
    assert_eq!(info("OPTIONS", "/healthz").unwrap().verb(), "options");
    assert_eq!(info("FrOb", "/healthz").unwrap().verb(), "frob");
}

#[test]
fn unresolvable_urls() {
    for path in ["/api/v1/watch", "/api/v1/watch/", "/api/v1/proxy", "/apis/g/v1/watch"] {
        assert_eq!(info("GET", path).unwrap_err(), InfoError::NothingAfterVerb, "{path}");
    }
    assert_eq!(info("GET", "/api/v1/%zz").unwrap_err(), InfoError::BadEscape);
    assert_eq!(info("GET", "/api/v1/a%2").unwrap_err(), InfoError::BadEscape);
}

#[test]
fn long_running_requests() {
    let long = [
        "/api/v1/watch/pods",
        "/api/v1/pods?watch=1",
        "/api/v1/namespaces/a/pods/x/log",
        "/api/v1/namespaces/a/pods/x/exec",
        "/api/v1/nodes/n/proxy/a",
        "/debug/pprof/heap",
        "/api/v1/proxy/nodes/n",
        "/apis/g/v1/things/x/log",
    ];
    for path in long {
        assert!(info("GET", path).unwrap().is_long_running(), "{path}");
    }
    for path in ["/debug/pprof", "/api/v1/pods", "/api/v1/namespaces/a/pods/x/status", "/log"] {
        assert!(!info("GET", path).unwrap().is_long_running(), "{path}");
    }
}

#[test]
fn bytes_that_are_no_utf8_stay() {
    assert_eq!(info("GET", "/api/v1/nodes/%FF").unwrap().name(), b"\xff");
}

proptest::proptest! {
    #[test]
    fn hostile_targets_never_panic(path in "(/|api|apis|v1|watch|proxy|namespaces|%2F|%zz|a|\\.\\.|status){0,14}",
                                   query in "(&|=|;|watch|limit|fieldSelector|metadata.name|,|!|%5C|1|\\+){0,12}") {
        if let Ok(target) = PathAndQuery::try_from(format!("/{path}?{query}")) {
            let _ = RequestInfo::new(&Method::GET, &target).map(|i| i.is_long_running());
        }
    }
}
