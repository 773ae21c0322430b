//! A product on the wire: an object, or a string in one of two short forms.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::limits;
use crate::domain::brief::Product;
use crate::domain::product::ProductError;
use crate::http::fields::{FieldErrors, list};
use crate::http::text::clean_lines;

/// The advertised product: `{"name": ...}` or a string such as `"智能手机 | 高像素相机 | 强大处理器"`.
#[derive(Debug)]
pub enum ProductInput {
    Object(Box<ProductObject>),
    Text(String),
}

/// A product as an object. `name` or `attributes` is required; without a name the first attribute names it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductObject {
    #[schema(max_length = 200, example = "TrailLite 40")]
    pub name: Option<String>,
    #[schema(max_length = 100, example = "Norrbo")]
    pub brand: Option<String>,
    #[schema(max_length = 100, example = "hiking backpack")]
    pub category: Option<String>,
    /// Facts of the product. Copy may use these, and no others.
    #[serde(default, deserialize_with = "list")]
    #[schema(max_items = 50, example = json!(["waterproof", "900 g", "3-year warranty"]))]
    pub attributes: Vec<String>,
    #[schema(max_length = 40, example = "$89")]
    pub price: Option<String>,
    /// The price before a discount.
    #[schema(max_length = 40, example = "$119")]
    pub list_price: Option<String>,
    #[schema(max_length = 200, example = "free returns")]
    pub offer: Option<String>,
    #[schema(max_length = 2000)]
    pub description: Option<String>,
}

impl ProductInput {
    /// Checks and converts; errors are recorded below `pointer`.
    pub fn parse(self, pointer: &str, errors: &mut FieldErrors) -> Option<Product> {
        match self {
            Self::Object(object) => object.parse(pointer, errors),
            Self::Text(text) => parse_text(&text, pointer, errors),
        }
    }
}

impl ProductObject {
    fn parse(self, pointer: &str, errors: &mut FieldErrors) -> Option<Product> {
        let mut text = |field: &str, given, max| errors.text(&format!("{pointer}/{field}"), given, max);
        let product = Product {
            name: text("name", self.name, limits::NAME_CHARS).unwrap_or_default(),
            brand: text("brand", self.brand, limits::BRAND_CHARS),
            category: text("category", self.category, limits::CATEGORY_CHARS),
            price: text("price", self.price, limits::PRICE_CHARS),
            list_price: text("list_price", self.list_price, limits::PRICE_CHARS),
            offer: text("offer", self.offer, limits::OFFER_CHARS),
            description: text("description", self.description, limits::DESCRIPTION_CHARS),
            attributes: errors.texts(
                &format!("{pointer}/attributes"),
                self.attributes,
                limits::ATTRIBUTES,
                limits::ATTRIBUTE_CHARS,
            ),
        };
        settle(product.named(), pointer, errors)
    }
}

/// Reads one of the short forms; what it holds is bounded as in an object.
fn parse_text(text: &str, pointer: &str, errors: &mut FieldErrors) -> Option<Product> {
    let text = clean_lines(text);
    errors.check_chars(pointer, &text, limits::PRODUCT_TEXT_CHARS);
    // What is too long is not worth reading.
    let text = Some(text).filter(|text| text.chars().count() <= limits::PRODUCT_TEXT_CHARS)?;
    let product = settle(Product::parse(&text), pointer, errors)?;
    let optional = |part: &Option<String>| part.clone().unwrap_or_default();
    errors.check_chars(pointer, &product.name, limits::NAME_CHARS);
    errors.check_chars(pointer, &optional(&product.brand), limits::BRAND_CHARS);
    errors.check_chars(pointer, &optional(&product.category), limits::CATEGORY_CHARS);
    errors.check_chars(pointer, &optional(&product.price), limits::PRICE_CHARS);
    for attribute in &product.attributes {
        errors.check_chars(pointer, attribute, limits::ATTRIBUTE_CHARS);
    }
    Some(product)
}

fn settle(parsed: Result<Product, ProductError>, pointer: &str, errors: &mut FieldErrors) -> Option<Product> {
    match parsed {
        Ok(product) => Some(product),
        Err(ProductError::Empty) => {
            errors.add(pointer, "must have a name or attributes");
            None
        }
        Err(error @ (ProductError::TooManyAttributes { .. } | ProductError::ValueTooLong { .. })) => {
            errors.add(pointer, error.to_string());
            None
        }
    }
}

impl<'de> Deserialize<'de> for ProductInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProductVisitor)
    }
}

/// By hand, for an untagged enum would lose the path of an error inside the object.
struct ProductVisitor;

impl<'de> Visitor<'de> for ProductVisitor {
    type Value = ProductInput;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a product object or a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(ProductInput::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let object = ProductObject::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ProductInput::Object(Box::new(object)))
    }
}

impl PartialSchema for ProductInput {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::String))
            .min_length(Some(1))
            .max_length(Some(limits::PRODUCT_TEXT_CHARS))
            .description(Some(
                "Name first, then attributes, separated by `|`, `;` or line breaks (full-width too); or \
                 `key#value*key#value`",
            ))
            .examples(["智能手机 | 高像素相机 | 强大处理器"]);
        OneOfBuilder::new().item(Ref::from_schema_name("ProductObject")).item(text).into()
    }
}

impl ToSchema for ProductInput {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Product")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(("ProductObject".to_owned(), ProductObject::schema()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Product, String> {
        let mut errors = FieldErrors::default();
        let product = parse_text(text, "/product", &mut errors);
        let errors = errors.into_vec();
        if errors.is_empty() { Ok(product.unwrap()) } else { Err(errors[0].detail.clone()) }
    }

    #[test]
    fn the_short_forms_are_read_after_cleaning() {
        let product = parse("智能手机\u{200b} ｜ 高像素相机\r\n强大处理器").unwrap();
        assert_eq!(product.name, "智能手机");
        assert_eq!(product.attributes, ["高像素相机", "强大处理器"]);
        assert_eq!(parse("类型#裙*风格#简约").unwrap().name, "裙");
    }

    #[test]
    fn a_product_without_any_fact_is_refused() {
        assert_eq!(parse(" | ; ").unwrap_err(), "must have a name or attributes");
        assert!(parse(&"x".repeat(4001)).unwrap_err().contains("at most 4000 characters, not 4001"));
        assert!(parse(&"x".repeat(201)).unwrap_err().contains("at most 200 characters, not 201"));
        assert!(parse(&"x|".repeat(60)).is_ok(), "repeated attributes count once");
    }
}
