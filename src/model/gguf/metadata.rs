//! The key-value pairs of a GGUF header. Only where each value lies is kept; values are decoded when asked for, so a
//! header costs no more memory than its keys.

use std::collections::BTreeMap;

use super::GgufError;
use super::reader::Reader;

const MAX_KEYS: u64 = 16_384;
const MAX_KEY_BYTES: usize = 65_535;
/// Vocabularies have up to 300,000 tokens and merges.
const MAX_ARRAY_LENGTH: u64 = 4 << 20;
const MAX_NESTING: usize = 4;

/// Where the values lie in the file.
#[derive(Debug, Default)]
pub struct Metadata {
    entries: BTreeMap<String, Entry>,
}

/// Metadata together with the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub struct MetadataView<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) metadata: &'a Metadata,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    value_type: ValueType,
    offset: usize,
}

/// GGUF's value types by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Metadata {
    pub(super) fn parse(reader: &mut Reader<'_>, n_keys: u64) -> Result<Self, GgufError> {
        if n_keys > MAX_KEYS {
            return Err(GgufError::TooLarge { what: "the number of metadata keys", found: n_keys, limit: MAX_KEYS });
        }
        let mut entries = BTreeMap::new();
        for _ in 0..n_keys {
            let key = reader.string("a metadata key")?;
            if key.len() > MAX_KEY_BYTES {
                return Err(GgufError::TooLarge {
                    what: "the length of a metadata key",
                    found: key.len() as u64,
                    limit: MAX_KEY_BYTES as u64,
                });
            }
            let value_type = ValueType::read(reader, key)?;
            let offset = reader.offset();
            skip(reader, value_type, key, 0)?;
            if entries.insert(key.to_owned(), Entry { value_type, offset }).is_some() {
                return Err(GgufError::DuplicateKey { key: key.to_owned() });
            }
        }
        Ok(Self { entries })
    }

    pub(super) fn view<'a>(&'a self, bytes: &'a [u8]) -> MetadataView<'a> {
        MetadataView { bytes, metadata: self }
    }
}

impl<'a> MetadataView<'a> {
    pub fn contains(self, key: &str) -> bool {
        self.metadata.entries.contains_key(key)
    }

    /// A string, or `None` where there is no such key.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn string(self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.entry(key) {
            None => Ok(None),
            Some((ValueType::String, mut reader)) => reader.string("a metadata string").map(Some),
            Some(_) => Err(wrong_type(key, "a string")),
        }
    }

    /// A whole number of any width that is not negative.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn u64(self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.entry(key) {
            None => Ok(None),
            Some((value_type, mut reader)) => integer(&mut reader, value_type)?
                .and_then(|value| u64::try_from(value).ok())
                .map(Some)
                .ok_or_else(|| wrong_type(key, "a whole number of 0 or more")),
        }
    }

    /// As [`Self::u64`], with a value for a missing key.
    ///
    /// # Errors
    /// As for [`Self::u64`].
    pub fn u64_or(self, key: &str, default: u64) -> Result<u64, GgufError> {
        Ok(self.u64(key)?.unwrap_or(default))
    }

    /// A floating-point number of either width.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn f32(self, key: &str) -> Result<Option<f32>, GgufError> {
        match self.entry(key) {
            None => Ok(None),
            Some((ValueType::F32, mut reader)) => Ok(Some(f32::from_le_bytes(reader.array("a number")?))),
            #[expect(clippy::cast_possible_truncation, reason = "hyperparameters are kept in single precision")]
            Some((ValueType::F64, mut reader)) => Ok(Some(f64::from_le_bytes(reader.array("a number")?) as f32)),
            Some(_) => Err(wrong_type(key, "a floating-point number")),
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn bool(self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.entry(key) {
            None => Ok(None),
            Some((ValueType::Bool, mut reader)) => Ok(Some(reader.array::<1>("a boolean")?[0] != 0)),
            Some(_) => Err(wrong_type(key, "a boolean")),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn strings(self, key: &str) -> Result<Option<Vec<&'a str>>, GgufError> {
        let Some((mut reader, n)) = self.array(key, |element| element == ValueType::String, "an array of strings")?
        else {
            return Ok(None);
        };
        (0..n).map(|_| reader.string("an array's string")).collect::<Result<_, _>>().map(Some)
    }

    /// An array of whole numbers of any width.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn integers(self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        let expected = "an array of whole numbers";
        let Some((mut reader, n)) = self.array(key, |element| element.is_integer(), expected)? else {
            return Ok(None);
        };
        let element = self.element_type(key);
        (0..n)
            .map(|_| {
                let value = element.map(|element| integer(&mut reader, element)).transpose()?.flatten();
                value.and_then(|value| i64::try_from(value).ok()).ok_or_else(|| wrong_type(key, expected))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of single-precision numbers.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn floats(self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        let Some((mut reader, n)) = self.array(key, |element| element == ValueType::F32, "an array of F32")? else {
            return Ok(None);
        };
        (0..n).map(|_| Ok(f32::from_le_bytes(reader.array("an array's number")?))).collect::<Result<_, _>>().map(Some)
    }

    fn entry(self, key: &str) -> Option<(ValueType, Reader<'a>)> {
        let entry = self.metadata.entries.get(key)?;
        Some((entry.value_type, Reader::at(self.bytes, entry.offset)))
    }

    fn element_type(self, key: &str) -> Option<ValueType> {
        let (_, mut reader) = self.entry(key)?;
        reader.u32("an array's type").ok().and_then(ValueType::from_number)
    }

    /// A reader at the first element of an array whose element type is as wanted, and the number of elements.
    fn array(
        self,
        key: &str,
        wanted: impl Fn(ValueType) -> bool,
        expected: &'static str,
    ) -> Result<Option<(Reader<'a>, u64)>, GgufError> {
        let (mut reader, element) = match self.entry(key) {
            None => return Ok(None),
            Some((ValueType::Array, mut reader)) => {
                let element = ValueType::read(&mut reader, key)?;
                (reader, element)
            }
            Some(_) => return Err(wrong_type(key, expected)),
        };
        if !wanted(element) {
            return Err(wrong_type(key, expected));
        }
        let n = reader.u64("an array's length")?;
        Ok(Some((reader, n)))
    }
}

impl ValueType {
    fn from_number(number: u32) -> Option<Self> {
        const TYPES: [ValueType; 13] = [
            ValueType::U8,
            ValueType::I8,
            ValueType::U16,
            ValueType::I16,
            ValueType::U32,
            ValueType::I32,
            ValueType::F32,
            ValueType::Bool,
            ValueType::String,
            ValueType::Array,
            ValueType::U64,
            ValueType::I64,
            ValueType::F64,
        ];
        TYPES.get(usize::try_from(number).ok()?).copied()
    }

    fn read(reader: &mut Reader<'_>, key: &str) -> Result<Self, GgufError> {
        let number = reader.u32("a value's type")?;
        Self::from_number(number).ok_or_else(|| GgufError::ValueType { key: key.to_owned(), found: number })
    }

    fn is_integer(self) -> bool {
        self != Self::Bool && self != Self::F32 && self != Self::F64 && self.fixed_bytes().is_some()
    }

    /// Bytes of a value; `None` for strings and arrays.
    fn fixed_bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// Walks over a value and checks its lengths and texts, so that reading it later cannot fail.
fn skip(reader: &mut Reader<'_>, value_type: ValueType, key: &str, depth: usize) -> Result<(), GgufError> {
    match value_type {
        ValueType::String => {
            reader.string("a metadata string")?;
        }
        ValueType::Array => {
            if depth >= MAX_NESTING {
                return Err(GgufError::Nesting { key: key.to_owned(), limit: MAX_NESTING });
            }
            let element = ValueType::read(reader, key)?;
            let n = reader.u64("an array's length")?;
            if n > MAX_ARRAY_LENGTH {
                return Err(GgufError::TooLarge { what: "the length of an array", found: n, limit: MAX_ARRAY_LENGTH });
            }
            if let Some(bytes) = element.fixed_bytes() {
                reader.bytes(n * bytes, "an array")?;
            } else {
                for _ in 0..n {
                    skip(reader, element, key, depth + 1)?;
                }
            }
        }
        fixed => {
            reader.bytes(fixed.fixed_bytes().unwrap_or(0), "a metadata value")?;
        }
    }
    Ok(())
}

fn integer(reader: &mut Reader<'_>, value_type: ValueType) -> Result<Option<i128>, GgufError> {
    let what = "a whole number";
    Ok(Some(match value_type {
        ValueType::U8 => u8::from_le_bytes(reader.array(what)?).into(),
        ValueType::I8 => i8::from_le_bytes(reader.array(what)?).into(),
        ValueType::U16 => u16::from_le_bytes(reader.array(what)?).into(),
        ValueType::I16 => i16::from_le_bytes(reader.array(what)?).into(),
        ValueType::U32 => u32::from_le_bytes(reader.array(what)?).into(),
        ValueType::I32 => i32::from_le_bytes(reader.array(what)?).into(),
        ValueType::U64 => u64::from_le_bytes(reader.array(what)?).into(),
        ValueType::I64 => i64::from_le_bytes(reader.array(what)?).into(),
        ValueType::F32 | ValueType::Bool | ValueType::String | ValueType::Array | ValueType::F64 => return Ok(None),
    }))
}

fn wrong_type(key: &str, expected: &'static str) -> GgufError {
    GgufError::WrongType { key: key.to_owned(), expected }
}
