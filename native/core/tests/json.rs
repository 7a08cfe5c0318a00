//! Erlang terms as JSON.

mod support;

use hot_patch_core::json::to_json;
use support::random::Random;

fn json(etf: &[u8]) -> Result<String, String> {
    match to_json(etf) {
        Ok(json) => Ok(String::from_utf8(json).expect("JSON is UTF-8")),
        Err(error) => Err(error.to_string()),
    }
}

/// `depth` tuples around an empty list.
fn nested(depth: usize) -> Vec<u8> {
    [&b"\x83"[..], &b"h\x01".repeat(depth), b"j"].concat()
}

#[test]
fn json_of_plain_terms() {
    // #{ok => [true, false, nil, undefined], <<"n">> => [-1, 1 bsl 70, 1.5], <<"ü">> => <<"\n">>,
    //   s => "ab"}
    let etf = b"\x83t\0\0\0\x04w\x02okl\0\0\0\x04w\x04truew\x05falsew\x03nilw\x09undefinedj\
        m\0\0\0\x01nl\0\0\0\x03b\xff\xff\xff\xffn\x09\0\0\0\0\0\0\0\0\0\x40F\x3f\xf8\0\0\0\0\0\0j\
        m\0\0\0\x02\xc3\xbcm\0\0\0\x01\nw\x01sk\0\x02ab";
    let expected = "{\"ok\":[true,false,null,\"undefined\"],\
        \"n\":[-1,1180591620717411303424,1.5],\"ü\":\"\\n\",\"s\":[97,98]}";
    assert_eq!(json(etf).as_deref(), Ok(expected));
    assert_eq!(json(b"\x83j").as_deref(), Ok("[]"));
}

#[test]
fn json_has_nothing_for_a_terminal_to_obey_or_hide() {
    // <<"a\x1b\x7f\u009b\u202eb\u{e0041}ü">>
    let etf = b"\x83m\0\0\0\x0f\x61\x1b\x7f\xc2\x9b\xe2\x80\xae\x62\xf3\xa0\x81\x81\xc3\xbc";
    let expected = r#""a\u001b\u007f\u009b\u202eb\udb40\udc41ü""#;
    assert_eq!(json(etf).as_deref(), Ok(expected));
}

#[test]
fn json_errors_name_the_term() {
    for (etf, expected) in [
        (&b"\x83h\x02w\x01aa\x01"[..], "a tuple, {'a',1}"),
        (b"\x83l\0\0\0\x01a\x01a\x02", "an improper list, [1|2]"),
        (b"\x83M\0\0\0\x01\x03\xa0", "a bitstring"),
        (b"\x83m\0\0\0\x02a\xff", "the binary \"a\\xFF\" is not UTF-8"),
        (b"\x83t\0\0\0\x01a\x07j", "a map with the key, 7"),
        (b"\x83t\0\0\0\x02w\x01ajm\0\0\0\x01aj", "the key \"a\" twice"),
        (b"\x83", "no Erlang term"),
    ] {
        let error = json(etf).unwrap_err();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    let huge = [&b"\x83o\0\0\x08\0\0"[..], &[1; 2048]].concat();
    assert!(json(&huge).unwrap_err().contains("2048 bytes"));
    assert!(json(&nested(1000)).unwrap_err().contains("deeper"));
}

#[test]
fn mutations_never_panic() {
    // #{a => [1 bsl 70, 1.5, <<"ab">>, "ab", 'ü']}
    let good = b"\x83t\0\0\0\x01w\x01al\0\0\0\x05n\x09\0\0\0\0\0\0\0\0\0\x40F\x3f\xf8\0\0\0\0\0\0m\0\0\0\x02ab\
        k\0\x02abw\x02\xc3\xbcj";
    assert!(json(good).is_ok());
    let mut random = Random(3);
    for _ in 0..100_000 {
        let _ = to_json(&random.mutate(good));
    }
}
