use super::*;

/// The expected values were computed with Go's `fmt.Sprintf("%g", x)`.
#[test]
fn doubles_are_formatted_like_by_go() {
    for (number, expected) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.0, "-1"),
        (42.0, "42"),
        (0.5, "0.5"),
        (100000.0, "100000"),
        (999999.0, "999999"),
        (999999.5, "999999.5"),
        (1000000.0, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (-1234567.0, "-1.234567e+06"),
        (1234567.5, "1.2345675e+06"),
        (9999999.0, "9.999999e+06"),
        (10000000.0, "1e+07"),
        (12345678.0, "1.2345678e+07"),
        (123456789.125, "1.23456789125e+08"),
        (2147483648.0, "2.147483648e+09"),
        (9007199254740992.0, "9.007199254740992e+15"),
        (9007199254740993u64 as f64, "9.007199254740992e+15"),
        (9223372036854775807u64 as f64, "9.223372036854776e+18"),
        (18446744073709551615u64 as f64, "1.8446744073709552e+19"),
        (1e20, "1e+20"),
        (1e21, "1e+21"),
        (1e22, "1e+22"),
        (1e23, "1e+23"),
        (1e30, "1e+30"),
        (1e100, "1e+100"),
        (f64::MAX, "1.7976931348623157e+308"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1.0 / 3.0, "0.3333333333333333"),
        (0.001, "0.001"),
        (0.0001, "0.0001"),
        (0.00012345, "0.00012345"),
        (0.00001, "1e-05"),
        (0.000012345, "1.2345e-05"),
        (1e-7, "1e-07"),
        (1e-10, "1e-10"),
        (1e-100, "1e-100"),
        (5e-324, "5e-324"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
    ] {
        assert_eq!(format(number), expected, "{number:e}");
    }
}

#[test]
fn numbers_are_parsed_like_by_go() {
    for (text, expected) in [
        ("12", Some(12.0)),
        ("-1.5e3", Some(-1500.0)),
        ("+.5", Some(0.5)),
        ("5.", Some(5.0)),
        ("inf", Some(f64::INFINITY)),
        ("-Infinity", Some(f64::NEG_INFINITY)),
        ("1e400", None),
        ("", None),
        (".", None),
        ("1_000", None),
        ("++1", None),
        ("+nan", None),
        ("0x", None),
        (" 1", None),
        ("1e", None),
    ] {
        assert_eq!(parse_double(text), expected, "{text:?}");
    }
    assert!(parse_double("NaN").is_some_and(f64::is_nan));
    for (text, expected) in [
        ("12", Some(12)),
        ("+12", Some(12)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("0x10", None),
        ("1.0", None),
        ("", None),
    ] {
        assert_eq!(parse_int(text), expected, "{text:?}");
    }
    assert_eq!(parse_uint("18446744073709551615"), Some(u64::MAX));
    for text in ["+1", "-1", "18446744073709551616"] {
        assert_eq!(parse_uint(text), None, "{text:?}");
    }
    for text in ["1", "t", "T", "true", "TRUE", "True"] {
        assert_eq!(parse_bool(text), Some(true), "{text:?}");
    }
    for text in ["yes", "tRUE", "", " true"] {
        assert_eq!(parse_bool(text), None, "{text:?}");
    }
}
