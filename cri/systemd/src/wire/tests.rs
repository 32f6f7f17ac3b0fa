use std::time::Duration;

use super::*;

fn target<'a>(member: &'a str) -> Target<'a> {
    Target { destination: "d.e", path: "/p", interface: "i.j", member }
}

/// By hand from the specification.
#[test]
fn a_call_is_laid_out_as_the_specification_says() {
    let bytes = call(7, &target("M"), &Body::new("sb").text("ab").bool(true));
    #[rustfmt::skip]
    let expected: &[u8] = &[
        b'l', 1, 0, 1, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,
        1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0, 0, 0, 0, 0, 0,
        2, 1, b's', 0, 3, 0, 0, 0, b'i', b'.', b'j', 0, 0, 0, 0, 0,
        3, 1, b's', 0, 1, 0, 0, 0, b'M', 0, 0, 0, 0, 0, 0, 0,
        6, 1, b's', 0, 3, 0, 0, 0, b'd', b'.', b'e', 0, 0, 0, 0, 0,
        8, 1, b'g', 0, 2, b's', b'b', 0,
        2, 0, 0, 0, b'a', b'b', 0, 0, 1, 0, 0, 0,
    ];
    let fields = u8::try_from(16 * 4 + 8).expect("small");
    let mut expected = expected.to_vec();
    expected[12] = fields;
    assert_eq!(bytes, expected);
    let head = bytes[..HEAD].try_into().expect("16 bytes");
    assert_eq!(size(&head), Ok(bytes.len()));
}

#[test]
fn properties_are_aligned() {
    let properties = [
        Property::new("A", true),
        Property { name: "B".to_owned(), value: Value::U32s(vec![5]) },
        Property::new("C", 9_u64),
        Property::new("D", vec![1_u8, 2]),
        Property { name: "E".to_owned(), value: Value::Texts(vec!["x".to_owned()]) },
    ];
    let body = Body::new("a(sv)").properties(&properties).writer.bytes;
    #[rustfmt::skip]
    let expected: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0,
        1, 0, 0, 0, b'B', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'C', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'D', 0, 2, b'a', b'y', 0, 0, 0, 2, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'E', 0, 2, b'a', b's', 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, b'x', 0,
    ];
    let mut expected = expected.to_vec();
    expected[0] = u8::try_from(expected.len() - 8).expect("small");
    assert_eq!(body, expected);
}

/// What systemd sends: an answer's fields, as a call has them otherwise.
#[test]
fn what_is_written_is_read_again() {
    let mut bytes = call(3, &target("JobRemoved"), &Body::new("ss").text("one").text("two"));
    let message = read(&bytes).expect("whole");
    assert_eq!((message.kind, message.member.as_str(), message.interface.as_str()), (Kind::Call, "JobRemoved", "i.j"));
    assert_eq!((message.signature.as_str(), message.reply_to), ("ss", None));
    let mut arguments = message.arguments();
    assert_eq!((arguments.text(), arguments.text()), (Ok("one"), Ok("two")));
    arguments.u32().expect_err("nothing is left");
    bytes[1] = 4;
    assert_eq!(read(&bytes).expect("whole").kind, Kind::Signal);
}

#[test]
fn lengths_are_checked() {
    let head = |change: &dyn Fn(&mut [u8; HEAD])| {
        let mut head = [b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        change(&mut head);
        size(&head)
    };
    assert_eq!(head(&|_| {}), Ok(HEAD));
    assert_eq!(head(&|head| head[12] = 1), Ok(24));
    for index in [4, 12] {
        head(&|head| head[index..index + 4].fill(0xff)).expect_err("too large");
    }
    head(&|head| head[0] = b'B').expect_err("byte order");
    head(&|head| head[3] = 2).expect_err("version");
}

#[test]
fn any_bytes() {
    bolero::check!().with_test_time(Duration::from_secs(2)).with_max_len(256).for_each(|bytes: &[u8]| {
        if let Some(head) = bytes.first_chunk::<HEAD>() {
            let _ = size(head);
        }
        if let Ok(message) = read(bytes) {
            let mut arguments = message.arguments();
            while arguments.text().is_ok() {}
            let _ = (arguments.signature(), arguments.u32());
        }
    });
}

/// A message of a server's: an answer, an error or a signal.
pub(crate) fn from_server(kind: u8, reply_to: Option<u32>, error: &str, member: &str, body: &Body) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes.extend([LITTLE, kind, 0, VERSION]);
    out.u32(length(body.writer.bytes.len()));
    out.u32(99);
    let number = reply_to.unwrap_or(0);
    let mut fields = vec![(SIGNATURE, "g", body.signature)];
    if reply_to.is_some() {
        fields.push((REPLY_TO, "u", ""));
    }
    if !error.is_empty() {
        fields.push((ERROR, "s", error));
    }
    if !member.is_empty() {
        fields.extend([(MEMBER, "s", member), (INTERFACE, "s", "org.freedesktop.systemd1.Manager")]);
    }
    out.array(8, &fields, |out, (code, signature, value)| {
        out.align(8);
        out.bytes.push(*code);
        out.signature(signature);
        match *signature {
            "g" => out.signature(value),
            "u" => out.u32(number),
            _ => out.text(value),
        }
    });
    out.align(8);
    out.bytes.extend(&body.writer.bytes);
    out.bytes
}

impl Body {
    /// `v` with a text.
    pub(crate) fn variant(mut self, text: &str) -> Self {
        self.writer.variant(&Value::Text(text.to_owned()));
        self
    }
}

/// A call's serial number.
pub(crate) fn serial(bytes: &[u8]) -> u32 {
    Reader { bytes, at: 8 }.u32().expect("a whole message")
}
