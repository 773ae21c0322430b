//! The committed OpenAPI document is the one that the code describes.

#[test]
fn the_committed_document_is_up_to_date() {
    let committed = include_str!("../../openapi/openapi.json");
    assert!(
        committed == adquill::http::openapi::document(),
        "openapi/openapi.json is out of date; run: cargo run -- openapi > openapi/openapi.json"
    );
}

#[test]
fn request_bounds_and_refusals_are_documented() {
    let document: serde_json::Value = serde_json::from_str(&adquill::http::openapi::document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let body = &document["components"]["schemas"]["AdCopyBody"];
    assert_eq!(body["additionalProperties"], false);
    assert_eq!(body["properties"]["n"]["maximum"], 20);
    assert_eq!(body["required"], serde_json::json!(["product"]));
    let responses = document["paths"]["/v1/ad-copy"]["post"]["responses"].as_object().unwrap();
    for status in ["200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503", "504"] {
        assert!(responses.contains_key(status), "{status} is not documented");
    }
    // Every reference has its target.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} has no schema");
    }
}
