//! A brief: what is advertised, to whom, in which voice. Built once at the edge; everything behind it is valid.

/// Languages that copy is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    En,
    Zh,
}

impl Language {
    /// ISO 639-1 code.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }
}

/// The advertised product. `name` is never empty: a product of attributes alone is named by its first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Product {
    pub name: String,
    pub brand: Option<String>,
    pub category: Option<String>,
    pub attributes: Vec<String>,
    pub price: Option<String>,
    pub list_price: Option<String>,
    pub offer: Option<String>,
    pub description: Option<String>,
}

/// Whom the copy speaks to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audience {
    pub segment: Option<String>,
    pub interests: Vec<String>,
    pub pain_points: Vec<String>,
}

/// Everything that shapes the text. Strings are NFC, trimmed, without control characters, and bounded by the edge.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Brief {
    pub product: Product,
    pub audience: Audience,
    /// Channel or channel field as the caller wrote it, e.g. `google_rsa` or `google_rsa.headline`.
    pub channel: String,
    /// Detected from the product when absent.
    pub language: Option<Language>,
    pub industry: Option<String>,
    pub tone: Option<String>,
    pub keywords: Vec<String>,
    pub banned_terms: Vec<String>,
    pub brand_kit: Option<String>,
}
