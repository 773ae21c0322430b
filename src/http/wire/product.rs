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
use crate::http::fields::{FieldErrors, list};
use crate::http::text::{clean_line, clean_lines};

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
        named(product, pointer, errors)
    }
}

/// Reads `name | attribute | ...`, `key#value*key#value`, or a name alone.
fn parse_text(text: &str, pointer: &str, errors: &mut FieldErrors) -> Option<Product> {
    let text = clean_lines(text);
    if text.chars().count() > limits::PRODUCT_TEXT_CHARS {
        errors.check_chars(pointer, &text, limits::PRODUCT_TEXT_CHARS);
        return None;
    }
    let product = pairs(&text).map_or_else(|| from_parts(&text), from_pairs);
    errors.check_chars(pointer, &product.name, limits::NAME_CHARS);
    errors.check_items(pointer, product.attributes.len(), limits::ATTRIBUTES);
    for attribute in &product.attributes {
        errors.check_chars(pointer, attribute, limits::ATTRIBUTE_CHARS);
    }
    for (part, max) in [
        (&product.brand, limits::BRAND_CHARS),
        (&product.category, limits::CATEGORY_CHARS),
        (&product.price, limits::PRICE_CHARS),
    ] {
        errors.check_chars(pointer, part.as_deref().unwrap_or_default(), max);
    }
    named(product, pointer, errors)
}

/// A product of attributes alone is named by its first.
fn named(mut product: Product, pointer: &str, errors: &mut FieldErrors) -> Option<Product> {
    if product.name.is_empty() && !product.attributes.is_empty() {
        product.name = product.attributes.remove(0);
    }
    if product.name.is_empty() {
        errors.add(pointer, "must have a name or attributes");
        return None;
    }
    Some(product)
}

fn from_parts(text: &str) -> Product {
    let mut parts = text.split(['|', '｜', ';', '；', '\n']).map(clean_line).filter(|part| !part.is_empty());
    let name = parts.next().unwrap_or_default();
    Product { name, attributes: distinct(parts), ..Product::default() }
}

/// The pairs of `key#value*key#value`, if the whole text has that form.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if text.contains(['|', '｜', ';', '；', '\n']) {
        return None;
    }
    let pairs = text.split('*').filter(|part| !part.trim().is_empty()).map(|part| {
        let (key, value) = part.split_once('#')?;
        let (key, value) = (clean_line(key), clean_line(value));
        // White space before the sign is prose: "Widget #5" is a name.
        (!key.is_empty() && !value.is_empty() && key.len() == part.find('#')?).then_some((key, value))
    });
    pairs.collect::<Option<Vec<_>>>().filter(|pairs| !pairs.is_empty())
}

fn from_pairs(pairs: Vec<(String, String)>) -> Product {
    let mut product = Product::default();
    let mut attributes = Vec::new();
    for (key, value) in pairs {
        let slot = match key.to_lowercase().as_str() {
            "name" | "product" | "名称" | "品名" | "商品" | "商品名" | "商品名称" | "产品" | "产品名称" =>
            {
                if product.name.is_empty() {
                    product.name = value;
                    continue;
                }
                None
            }
            "brand" | "品牌" => Some(&mut product.brand),
            "category" | "type" | "类型" | "类别" | "品类" => Some(&mut product.category),
            "price" | "价格" => Some(&mut product.price),
            _ => None,
        };
        match slot {
            Some(slot @ None) => *slot = Some(value),
            _ => attributes.push(value),
        }
    }
    product.attributes = distinct(attributes);
    if product.name.is_empty() {
        product.name = product.category.clone().unwrap_or_default();
    }
    product
}

fn distinct(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
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
    fn a_list_has_the_name_first() {
        for text in [
            "智能手机 | 高像素相机 | 强大处理器",
            "智能手机；高像素相机；；强大处理器",
            "智能手机\n高像素相机\n强大处理器",
        ] {
            let product = parse(text).unwrap();
            assert_eq!(product.name, "智能手机");
            assert_eq!(product.attributes, ["高像素相机", "强大处理器"]);
        }
    }

    #[test]
    fn pairs_fill_the_product_and_the_first_value_names_it() {
        let product = parse("类型#裙*风格#简约*图案#条纹*风格#简约").unwrap();
        assert_eq!((product.name.as_str(), product.category.as_deref()), ("裙", Some("裙")));
        assert_eq!(product.attributes, ["简约", "条纹"]);
        let product = parse("风格#简约*颜色#白色").unwrap();
        assert_eq!((product.name.as_str(), product.attributes.as_slice()), ("简约", &["白色".to_owned()][..]));
        let product = parse("brand#Norrbo*name#TrailLite 40*price#$89").unwrap();
        assert_eq!((product.name.as_str(), product.brand.as_deref()), ("TrailLite 40", Some("Norrbo")));
        assert_eq!(product.price.as_deref(), Some("$89"));
    }

    #[test]
    fn a_plain_name_may_hold_a_star_or_a_number_sign() {
        assert_eq!(parse("Widget #5").unwrap().name, "Widget #5");
        assert_eq!(parse("Pro* tool").unwrap().name, "Pro* tool");
        assert_eq!(parse("C# course | 20 h").unwrap().name, "C# course");
    }

    #[test]
    fn a_product_without_any_fact_is_refused() {
        assert_eq!(parse(" | ; ").unwrap_err(), "must have a name or attributes");
        assert!(parse(&"x".repeat(4001)).unwrap_err().contains("at most 4000 characters, not 4001"));
        assert!(parse(&"x|".repeat(60)).is_ok(), "repeated attributes count once");
    }
}
