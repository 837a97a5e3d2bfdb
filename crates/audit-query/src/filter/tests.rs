use jiff::ZonedDateTime;

use super::*;

const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/prod/pods/web/exec?command=sh\u0026fieldManager=kubectl%2Dedit","verb":"create","user":{"username":"system:serviceaccount:ci:deployer","groups":["system:serviceaccounts","dev"]},"impersonatedUser":{"username":"bob"},"sourceIPs":["10.1.2.3","192.168.0.1"],"userAgent":"kubectl/v1.36","objectRef":{"resource":"pods","namespace":"prod","name":"web","apiGroup":"apps","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"code":403},"requestReceivedTimestamp":"2026-11-23T10:00:00.000000Z","stageTimestamp":"2026-11-23T10:00:01.500000Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#;

fn filter(arguments: &[&str]) -> Result<Filter, FilterError> {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        filter: FilterArgs,
    }
    let arguments = std::iter::once("query").chain(arguments.iter().copied());
    let command: Command = clap::Parser::parse_from(arguments);
    let now: ZonedDateTime = "2026-11-23T11:00:00+00:00[UTC]".parse().unwrap();
    Filter::new(&command.filter, &now)
}

#[test]
fn each_flag_chooses_and_refuses() {
    let event = Event::parse(LINE.as_bytes()).unwrap();
    for (arguments, expected) in [
        (&[][..], true),
        (&["--since=-1h"], true),
        (&["--since=-59m"], false),
        (&["--since", "-2h", "--until", "10:00:01.5"], false),
        (&["--until=10:00:02"], true),
        (&["-u", "system:serviceaccount:ci:deployer"], true),
        (&["-u", "deployer"], false),
        (&["--user=*:deployer", "--user=alice"], true),
        (&["--group", "dev"], true),
        (&["--group", "ops"], false),
        (&["--group", "!dev"], false),
        (&["--service-account", "ci:deployer"], true),
        (&["--service-account", "ci:*"], true),
        (&["--service-account", "prod:deployer"], false),
        (&["--impersonated"], true),
        (&["--impersonated=bob"], true),
        (&["--impersonated=alice"], false),
        (&["--anonymous"], false),
        (&["--human"], false),
        (&["--verb", "create"], true),
        (&["--verb", "!create"], false),
        (&["--resource", "pods"], true),
        (&["--resource", "pods/exec"], true),
        (&["--resource", "pods.apps/exec"], true),
        (&["--resource", "pods.batch"], false),
        (&["--resource", "pods/"], false),
        (&["--resource", "*/exec"], true),
        (&["--resource", "secrets"], false),
        (&["--resource", "!secrets"], true),
        (&["-n", "prod"], true),
        (&["-n", "pro*", "--name", "web"], true),
        (&["--name", "we"], false),
        (&["--uri", "/api/v1/namespaces/prod/*"], true),
        (&["--uri", "/api/v1/namespaces/prod"], false),
        (&["--code", "403"], true),
        (&["--code", "500,4xx"], true),
        (&["--code", ">=404"], false),
        (&["--code", "!4xx"], false),
        (&["--failed"], true),
        (&["--forbidden"], true),
        (&["--audit-id", "a-1"], true),
        (&["--source-ip", "192.168.0.0/16"], true),
        (&["--source-ip", "10.1.2.4"], false),
        (&["--user-agent", "kubectl/*"], true),
        (&["--level", "request"], true),
        (&["--level", "Metadata"], false),
        (&["--field-manager", "kubectl-edit"], true),
        (&["--field-manager", "kubectl"], false),
        (&["--min-latency", "1500ms"], true),
        (&["--min-latency", "2s"], false),
        (&["--annotation", "authorization.k8s.io/decision=forbid"], true),
        (&["--annotation", "authorization.k8s.io/decision"], true),
        (&["--annotation", "authorization.k8s.io/decision=allow"], false),
        (&["--annotation", "!authorization.k8s.io/reason"], true),
        (&["--where", "responseStatus.code == 403"], true),
        (&["--where", "responseStatus.code == 404"], false),
        (&["--verb", "create", "--namespace", "dev"], false),
    ] {
        let filter = filter(arguments).unwrap();
        assert_eq!(filter.matches(&event), expected, "{arguments:?}");
        // What is wanted is in the line.
        if let (true, Some(needle)) = (expected, filter.needle()) {
            assert!(needle.search(LINE.as_bytes()).next(0).is_some(), "{arguments:?}");
        }
    }
}

#[test]
fn a_request_without_a_response_has_no_outcome() {
    let line = br#"{"auditID":"1","stage":"RequestReceived","verb":"get"}"#;
    let event = Event::parse(line).unwrap();
    for arguments in [["--code=!403"], ["--failed"], ["--forbidden"], ["--min-latency=0s"]] {
        assert!(!filter(&arguments).unwrap().matches(&event), "{arguments:?}");
    }
}

#[test]
fn errors_name_the_flag_and_its_accepted_values() {
    for (argument, expected) in [
        ("--since=tomorrow", "--since=tomorrow: not a time; accepted are RFC 3339"),
        ("--code=4", ""),
        ("--code=forty", "--code=forty: not a status code; accepted are 403, 4xx"),
        ("--source-ip=10.0.0", "--source-ip=10.0.0: not an IP address or a CIDR block"),
        ("--service-account=ci", "--service-account=ci: not of the form NAMESPACE:NAME"),
        ("--level=all", "--level=all: not an audit level; accepted are Metadata"),
        ("--min-latency=1", "--min-latency=1: not a duration"),
        ("--where=verb =", "--where=verb =: line 1, column"),
    ] {
        match filter(&[argument]) {
            Err(error) => assert!(error.to_string().starts_with(expected), "{error}"),
            Ok(_) => assert_eq!(expected, "", "{argument}"),
        }
    }
}
