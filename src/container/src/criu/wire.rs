//! The part of the protobuf encoding that CRIU's RPC uses: numbers, texts, and messages in messages
//! (protobuf.dev, "Encoding"). Ten messages, most fields of which one side never sets: a generated
//! codec would be larger than all that is said.

/// A message being written.
#[derive(Debug, Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// An integer, a bool or an enum's value. Negative numbers take ten bytes, as int32 does.
    pub fn number(&mut self, field: u32, value: i64) {
        self.key(field, 0);
        self.varint(value as u64);
    }

    /// A string.
    pub fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message in this one.
    pub fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }

    /// What goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field of a message that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integer, bool or enum.
    Number(u64),
    /// String or message.
    Bytes(&'a [u8]),
    /// Of a kind that CRIU does not use.
    Fixed,
}

impl<'a> Value<'a> {
    /// As int32; 0 for what is no number.
    pub fn as_i32(self) -> i32 {
        match self {
            Value::Number(n) => n as i32,
            Value::Bytes(_) | Value::Fixed => 0,
        }
    }

    /// As bool.
    pub fn as_bool(self) -> bool {
        matches!(self, Value::Number(n) if n != 0)
    }

    /// As string.
    pub fn as_text(self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }

    /// The bytes of a string or a message.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Number(_) | Value::Fixed => &[],
        }
    }
}

/// The fields of a message in their order: number and value. None after the first that is broken.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Option<(u32, Value<'_>)>> {
    let mut rest = Some(message);
    std::iter::from_fn(move || {
        let input = rest.filter(|input| !input.is_empty())?;
        let field = next(input);
        rest = field.map(|(_, rest)| rest);
        Some(field.map(|(field, _)| field))
    })
}

fn next(input: &[u8]) -> Option<((u32, Value<'_>), &[u8])> {
    let (key, input) = varint(input)?;
    let number = u32::try_from(key >> 3).ok()?;
    let (value, rest) = match key & 7 {
        0 => varint(input).map(|(n, rest)| (Value::Number(n), rest))?,
        1 => (Value::Fixed, input.get(8..)?),
        2 => {
            let (length, rest) = varint(input)?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Value::Bytes(bytes), rest)
        }
        5 => (Value::Fixed, input.get(4..)?),
        _ => return None,
    };
    Some(((number, value), rest))
}

fn varint(input: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &input[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Message::default();
        inner.text(1, "key");
        let mut message = Message::default();
        message.number(1, 3);
        message.number(2, -1);
        message.number(300, 1 << 40);
        message.message(27, &inner);
        let read: Vec<_> = fields(message.as_bytes()).collect::<Option<_>>().unwrap();
        assert_eq!(read[0], (1, Value::Number(3)));
        assert_eq!((read[1].0, read[1].1.as_i32()), (2, -1));
        assert_eq!(read[2], (300, Value::Number(1 << 40)));
        assert_eq!(fields(read[3].1.as_bytes()).next().unwrap().unwrap().1.as_text(), "key");
    }

    #[test]
    fn bytes_are_those_of_protobuf() {
        // protobuf.dev, "Encoding": field 1 = 150, field 2 = "testing".
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        assert_eq!(message.as_bytes(), b"\x08\x96\x01\x12\x07testing");
    }

    #[test]
    fn broken_messages_end_in_none_and_do_not_panic() {
        for bytes in [
            &b"\x08"[..],
            b"\x12\x05abc",
            b"\x0b",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09abc",
        ] {
            assert_eq!(fields(bytes).last().unwrap(), None, "{bytes:?}");
        }
        assert_eq!(fields(b"").count(), 0);
        // Fixed-size fields of a later CRIU are passed over.
        let read: Vec<_> = fields(b"\x0d1234\x1112345678\x18\x01").flatten().collect();
        assert_eq!(read, [(1, Value::Fixed), (2, Value::Fixed), (3, Value::Number(1))]);
    }
}
