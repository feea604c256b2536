//! D-Bus messages as bytes: the few types that systemd's calls take, and what its answers have.
//!
//! Pure. The marshalling is that of the D-Bus specification, "Marshaling (Wire Format)": values are
//! aligned to their size, counted from the start of the message, strings end with a zero byte that
//! the length does not count. creel writes little endian and reads both.

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a` of one type, whose signature an empty array needs.
    Array(String, Vec<Value>),
    /// `(...)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// A `s`.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// `(sv)`, as systemd takes a unit's property.
    pub fn property(name: &str, value: Value) -> Value {
        Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
    }

    /// Signature of the type.
    pub fn signature(&self) -> String {
        let letter = match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Text(_) => "s",
            Value::Path(_) => "o",
            Value::Signature(_) => "g",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                let inner: String = fields.iter().map(Value::signature).collect();
                return format!("({inner})");
            }
            Value::Variant(_) => "v",
        };
        letter.to_owned()
    }
}

/// Size to which a type is aligned, by the first letter of its signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') | None => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(_) => 4,
    }
}

/// Bytes in the making.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn length(&mut self, length: usize) {
        // A message is far below the 128 MiB that the specification allows.
        self.put(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(yes) => self.put(&u32::from(*yes).to_le_bytes()),
            Value::I16(number) => self.put(&number.to_le_bytes()),
            Value::U16(number) => self.put(&number.to_le_bytes()),
            Value::I32(number) => self.put(&number.to_le_bytes()),
            Value::U32(number) => self.put(&number.to_le_bytes()),
            Value::I64(number) => self.put(&number.to_le_bytes()),
            Value::U64(number) => self.put(&number.to_le_bytes()),
            Value::Double(number) => self.put(&number.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Signature(signature) => self.signature(signature),
            Value::Array(element, values) => {
                self.length(0);
                let length_at = self.0.len() - 4;
                // The padding before the first element is there even in an empty array, and is not
                // part of the length.
                self.align(alignment(element));
                let start = self.0.len();
                values.iter().for_each(|v| self.value(v));
                let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|v| self.value(v));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// METHOD_CALL
    Call,
    /// METHOD_RETURN
    Return,
    /// ERROR
    Error,
    /// SIGNAL
    Signal,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Bus name; none without a bus in between.
    pub destination: Option<&'a str>,
    /// Object path.
    pub path: &'a str,
    /// Interface.
    pub interface: &'a str,
    /// Method.
    pub member: &'a str,
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// Protocol version of every message.
const VERSION: u8 = 1;
/// Length of the part of the header that has fixed places.
const FIXED: usize = 16;
/// Far more than systemd has to say about one unit; the specification allows 128 MiB.
const LONGEST: usize = 16 << 20;

/// A method call.
pub fn call(serial: u32, target: Target<'_>, body: &[Value]) -> Vec<u8> {
    let field =
        |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
    let mut fields = vec![
        field(PATH, Value::Path(target.path.to_owned())),
        field(MEMBER, Value::text(target.member)),
        field(INTERFACE, Value::text(target.interface)),
    ];
    if let Some(destination) = target.destination {
        fields.push(field(DESTINATION, Value::text(destination)));
    }
    message(Kind::Call, serial, fields, body)
}

fn message(kind: Kind, serial: u32, mut fields: Vec<Value>, body: &[Value]) -> Vec<u8> {
    let signature: String = body.iter().map(Value::signature).collect();
    if !signature.is_empty() {
        let signature = Value::Variant(Box::new(Value::Signature(signature)));
        fields.push(Value::Struct(vec![Value::Byte(SIGNATURE), signature]));
    }
    let kind = match kind {
        Kind::Call => 1,
        Kind::Return => 2,
        Kind::Error => 3,
        Kind::Signal => 4,
    };
    let mut content = Writer::default();
    body.iter().for_each(|value| content.value(value));
    // Flags: none. systemd needs no interactive authorization from root or its own user.
    let mut out = Writer(vec![b'l', kind, 0, VERSION]);
    out.length(content.0.len());
    out.length(serial as usize);
    out.value(&Value::Array("(yv)".to_owned(), fields));
    out.align(8);
    out.0.extend(content.0);
    out.0
}

/// A message as received.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Serial of the call that it answers.
    pub reply_to: Option<u32>,
    /// Who sent it, by the word of the bus: nobody sends in another's name.
    pub sender: Option<String>,
    /// Member of a signal.
    pub member: String,
    /// Name of an error.
    pub error: String,
    /// Arguments; those of types that systemd's answers to creel do not have end the list.
    pub body: Vec<Value>,
}

impl Message {
    /// The text at `index` of the body: a string, an object path, or one in a variant.
    pub fn text(&self, index: usize) -> Option<&str> {
        let value = self.body.get(index)?;
        let value = if let Value::Variant(inner) = value { inner } else { value };
        if let Value::Text(text) | Value::Path(text) = value { Some(text) } else { None }
    }
}

/// The bytes are no D-Bus message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbled;

/// Takes the first message off `bytes`: it and its length, `None` when it is not whole yet.
pub fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, Garbled> {
    let Some(fixed) = bytes.get(..FIXED) else { return Ok(None) };
    let big = match fixed[0] {
        b'l' => false,
        b'B' => true,
        _ => return Err(Garbled),
    };
    let kind = match fixed[1] {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return Err(Garbled),
    };
    if fixed[3] != VERSION {
        return Err(Garbled);
    }
    let mut reader = Reader { bytes, at: 4, big };
    let body_length = reader.u32()? as usize;
    reader.u32()?;
    let fields_length = reader.u32()? as usize;
    if body_length > LONGEST || fields_length > LONGEST {
        return Err(Garbled);
    }
    let fields_end = FIXED + fields_length;
    let body_start = fields_end.next_multiple_of(8);
    let end = body_start + body_length;
    if bytes.len() < end {
        return Ok(None);
    }
    reader.bytes = &bytes[..fields_end];
    let mut message = Message {
        kind,
        reply_to: None,
        sender: None,
        member: String::new(),
        error: String::new(),
        body: Vec::new(),
    };
    let mut signature = String::new();
    while reader.at < fields_end {
        reader.align(8)?;
        let code = reader.u8()?;
        match (code, reader.variant()?) {
            (MEMBER, Value::Text(text)) => message.member = text,
            (ERROR_NAME, Value::Text(text)) => message.error = text,
            (REPLY_SERIAL, Value::U32(serial)) => message.reply_to = Some(serial),
            (SENDER, Value::Text(name)) => message.sender = Some(name),
            (SIGNATURE, Value::Signature(text)) => signature = text,
            _ => {}
        }
    }
    // Alignment counts from the start of the message, and the body starts at a multiple of 8.
    let mut reader = Reader { bytes: &bytes[..end], at: body_start, big };
    for letter in signature.chars() {
        match reader.value(letter) {
            Ok(value) => message.body.push(value),
            Err(Unread::Type) => break,
            Err(Unread::Garbled) => return Err(Garbled),
        }
    }
    Ok(Some((message, end)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

enum Unread {
    /// A type that is not read here.
    Type,
    Garbled,
}

impl From<Garbled> for Unread {
    fn from(_: Garbled) -> Self {
        Unread::Garbled
    }
}

impl Reader<'_> {
    fn align(&mut self, to: usize) -> Result<(), Garbled> {
        self.at = self.at.next_multiple_of(to);
        if self.at <= self.bytes.len() { Ok(()) } else { Err(Garbled) }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Garbled> {
        let end = self.at.checked_add(count).ok_or(Garbled)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Garbled)?;
        self.at = end;
        Ok(bytes)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.align(N)?;
        let big = self.big;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| Garbled)?;
        if big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, Garbled> {
        self.number::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Garbled> {
        self.number().map(u32::from_le_bytes)
    }

    fn string(&mut self, length: usize) -> Result<String, Garbled> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Garbled)?.to_owned();
        if self.take(1)? == [0] { Ok(text) } else { Err(Garbled) }
    }

    fn value(&mut self, letter: char) -> Result<Value, Unread> {
        Ok(match letter {
            'y' => Value::Byte(self.u8()?),
            'b' => Value::Bool(self.u32()? != 0),
            'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            'u' => Value::U32(self.u32()?),
            'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            't' => Value::U64(u64::from_le_bytes(self.number()?)),
            's' | 'o' => {
                let length = self.u32()? as usize;
                let text = self.string(length)?;
                if letter == 's' { Value::Text(text) } else { Value::Path(text) }
            }
            'g' => {
                let length = usize::from(self.u8()?);
                Value::Signature(self.string(length)?)
            }
            'v' => Value::Variant(Box::new(self.variant()?)),
            _ => return Err(Unread::Type),
        })
    }

    /// The value in a variant. One of another type than [`Reader::value`] reads is garbage here: no
    /// header field and no property that creel asks for has one.
    fn variant(&mut self) -> Result<Value, Garbled> {
        let length = usize::from(self.u8()?);
        let signature = self.string(length)?;
        let mut letters = signature.chars();
        match (letters.next(), letters.next()) {
            // A variant in a variant could nest without end.
            (Some(letter), None) if letter != 'v' => self.value(letter).map_err(|_| Garbled),
            _ => Err(Garbled),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;

    /// An answer, a signal or an error, as a test's systemd sends it.
    pub fn answer(kind: Kind, reply_to: u32, member: &str, error: &str, body: &[Value]) -> Vec<u8> {
        answer_of(":1.0", kind, reply_to, member, error, body)
    }

    /// One that somebody else sends.
    pub fn answer_of(
        sender: &str,
        kind: Kind,
        reply_to: u32,
        member: &str,
        error: &str,
        body: &[Value],
    ) -> Vec<u8> {
        let field =
            |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut fields = vec![field(SENDER, Value::text(sender))];
        if kind == Kind::Signal {
            fields.push(field(PATH, Value::Path("/org/freedesktop/systemd1".to_owned())));
            fields.push(field(INTERFACE, Value::text("org.freedesktop.systemd1.Manager")));
            fields.push(field(MEMBER, Value::text(member)));
        } else {
            fields.push(field(REPLY_SERIAL, Value::U32(reply_to)));
        }
        if kind == Kind::Error {
            fields.push(field(ERROR_NAME, Value::text(error)));
        }
        message(kind, 7, fields, body)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What busctl(1) of systemd 252 sends, recorded from its socket.
    const HELLO: &str = concat!(
        "6c01000100000000010000006d00000001016f00150000002f6f72672f667265656465736b746f702f44427573000000",
        "030173000500000048656c6c6f00000002017300140000006f72672e667265656465736b746f702e4442757300000000",
        "06017300140000006f72672e667265656465736b746f702e4442757300000000",
    );

    /// `busctl call ... StartTransientUnit 'ssa(sv)a(sa(sv))' x-y.scope replace 5 PIDs au 1 4242 Delegate b
    /// true TasksMax t 20 DeviceAllow 'a(ss)' 1 /dev/char/1:3 rwm AllowedCPUs ay 1 3 0`, but for
    /// its flag that a password may be asked for.
    const START: &str = concat!(
        "6c010001c800000002000000b600000001016f00190000002f6f72672f667265656465736b746f702f73797374656d64",
        "3100000000000000030173001200000053746172745472616e7369656e74556e69740000000000000201730020000000",
        "6f72672e667265656465736b746f702e73797374656d64312e4d616e6167657200000000000000000601730018000000",
        "6f72672e667265656465736b746f702e73797374656d6431000000000000000008016700107373612873762961287361",
        "287376292900000009000000782d792e73636f7065000000070000007265706c61636500a10000000400000050494473",
        "000261750000000004000000921000000800000044656c6567617465000162000100000000000000080000005461736b",
        "734d61780001740014000000000000000b000000446576696365416c6c6f770005612873732900001c00000000000000",
        "0d0000002f6465762f636861722f313a330000000300000072776d00000000000b000000416c6c6f7765644350557300",
        "02617900010000000300000000000000",
    );

    #[test]
    fn messages_are_those_of_systemds_own_library() {
        let bus = "org.freedesktop.DBus";
        let target =
            Target { destination: Some(bus), path: "/org/freedesktop/DBus", interface: bus, member: "Hello" };
        assert_eq!(hex(&call(1, target, &[])), HELLO);
        let device = Value::Struct(vec![Value::text("/dev/char/1:3"), Value::text("rwm")]);
        let properties = vec![
            Value::property("PIDs", Value::Array("u".into(), vec![Value::U32(4242)])),
            Value::property("Delegate", Value::Bool(true)),
            Value::property("TasksMax", Value::U64(20)),
            Value::property("DeviceAllow", Value::Array("(ss)".into(), vec![device])),
            Value::property("AllowedCPUs", Value::Array("y".into(), vec![Value::Byte(3)])),
        ];
        let body = [
            Value::text("x-y.scope"),
            Value::text("replace"),
            Value::Array("(sv)".into(), properties),
            Value::Array("(sa(sv))".into(), vec![]),
        ];
        let target = Target {
            destination: Some("org.freedesktop.systemd1"),
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
        };
        assert_eq!(hex(&call(2, target, &body)), START);
    }

    #[test]
    fn values_are_aligned_as_the_specification_says() {
        let bytes = |values: &[Value]| {
            let mut writer = Writer::default();
            values.iter().for_each(|v| writer.value(v));
            hex(&writer.0)
        };
        assert_eq!(bytes(&[Value::Byte(1), Value::U32(2)]), "0100000002000000");
        assert_eq!(bytes(&[Value::Byte(1), Value::U16(2)]), "01000200");
        assert_eq!(bytes(&[Value::U32(1), Value::U64(2)]), "01000000000000000200000000000000");
        assert_eq!(
            bytes(&[Value::text("ab"), Value::Bool(true)]),
            "02000000616200".to_owned() + "00" + "01000000"
        );
        // The array's padding does not count as its content.
        assert_eq!(
            bytes(&[Value::Array("t".into(), vec![Value::U64(5)])]),
            "08000000000000000500000000000000"
        );
        assert_eq!(bytes(&[Value::Array("(ss)".into(), vec![])]), "0000000000000000");
        assert_eq!(bytes(&[Value::Array("y".into(), vec![Value::Byte(3), Value::Byte(4)])]), "020000000304");
        assert_eq!(
            bytes(&[Value::Variant(Box::new(Value::Array("u".into(), vec![Value::U32(9)])))]),
            "0261750004000000".to_owned() + "09000000"
        );
    }

    #[test]
    fn a_property_is_a_string_and_a_variant() {
        let property = Value::property("PIDs", Value::Array("u".into(), vec![Value::U32(1)]));
        assert_eq!(property.signature(), "(sv)");
        let mut writer = Writer::default();
        writer.value(&property);
        assert_eq!(
            hex(&writer.0),
            "040000005049447300".to_owned() + "02617500" + "000000" + "0400000001000000"
        );
    }

    #[test]
    fn messages_are_taken_off_one_by_one() {
        let removed =
            [Value::U32(4), Value::Path("/job/4".into()), Value::text("x.scope"), Value::text("done")];
        let mut bytes = answer(Kind::Return, 3, "", "", &[Value::Path("/job/4".into())]);
        let first = bytes.len();
        bytes.extend(answer(Kind::Signal, 0, "JobRemoved", "", &removed));
        for cut in 0..first {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (message, length) = parse(&bytes).unwrap().unwrap();
        assert_eq!(
            (message.kind, message.reply_to, message.text(0)),
            (Kind::Return, Some(3), Some("/job/4"))
        );
        assert_eq!(length, first);
        let (message, length) = parse(&bytes[first..]).unwrap().unwrap();
        assert_eq!((message.kind, message.member.as_str()), (Kind::Signal, "JobRemoved"));
        assert_eq!((message.text(2), message.text(3)), (Some("x.scope"), Some("done")));
        assert_eq!(first + length, bytes.len());
    }

    #[test]
    fn arguments_of_other_types_end_the_list() {
        let body = [Value::text("a"), Value::Array("s".into(), vec![Value::text("b")]), Value::text("c")];
        let (message, _) = parse(&answer(Kind::Signal, 0, "X", "", &body)).unwrap().unwrap();
        assert_eq!(message.body, [Value::text("a")]);
    }

    #[test]
    fn garbage_is_no_message() {
        let good = answer(Kind::Return, 3, "", "", &[Value::text("x")]);
        for (at, byte) in [(0, b'x'), (1, 9), (3, 2), (7, 0x7f), (15, 0x7f)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(parse(&bytes), Err(Garbled), "byte {at}");
        }
    }

    #[test]
    fn big_endian_answers_are_read() {
        let bytes =
            b"B\x02\x00\x01\0\0\0\x04\0\0\0\x01\0\0\0\x0f\x05\x01u\0\0\0\0\x03\x08\x01g\0\x01u\0\0\0\0\0\x2a";
        let (message, length) = parse(bytes).unwrap().unwrap();
        assert_eq!((message.reply_to, length), (Some(3), bytes.len()));
        assert_eq!(message.body, [Value::U32(42)]);
    }
}
