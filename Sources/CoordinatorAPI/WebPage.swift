import Foundation
import HTTPServing
import HTTPTypes

/// Self-contained pages: nothing outside this server is asked for, and no script runs that this server did not write.
enum WebPage {
    /// The dashboard, in the language that the browser asks for.
    static func dashboard(language: String) -> ServerResponse {
        html { nonce in
            EmbeddedText.dashboardHtml
                .replacing("{{language}}", with: language)
                .replacing("{{nonce}}", with: nonce)
                .replacing("{{style}}", with: EmbeddedText.dashboardCss)
                .replacing("{{script}}", with: dashboardScript)
        }
    }

    private static let dashboardScript = [
        EmbeddedText.dashboardWordsJs, PageVocabulary.script, EmbeddedText.dashboardConnectionJs,
        EmbeddedText.dashboardHistoryJs,
        EmbeddedText.dashboardChartsJs,
        EmbeddedText.dashboardPartsJs, EmbeddedText.dashboardTableJs, EmbeddedText.dashboardTermsJs,
        EmbeddedText.dashboardVocabularyJs,
        EmbeddedText.dashboardCreateJs, EmbeddedText.dashboardViewsJs,
        EmbeddedText.dashboardJs,
    ].joined(separator: "\n")

    /// The API reference, made of `openapi.yaml`.
    static func reference() -> ServerResponse {
        html { nonce in
            EmbeddedText.docsHtml
                .replacing("{{nonce}}", with: nonce)
                .replacing("{{style}}", with: EmbeddedText.docsCss)
                .replacing("{{script}}", with: EmbeddedText.docsJs)
                .replacing("{{body}}", with: APIReference.shared.body)
                .replacing("{{contents}}", with: APIReference.shared.contents)
        }
    }

    /// `zh` when the browser prefers Chinese to English, else `en`.
    static func language(_ field: String?) -> String {
        var best = (language: "en", weight: 0.0)
        for item in (field ?? "").lowercased().split(separator: ",") {
            let parts = item.split(separator: ";").map { $0.trimmingCharacters(in: .whitespaces) }
            let quality = parts.dropFirst().first { $0.hasPrefix("q=") }.flatMap { Double($0.dropFirst(2)) } ?? 1
            guard let tag = parts.first?.prefix(2), ["zh", "en"].contains(tag), quality > best.weight else { continue }
            best = (String(tag), quality)
        }
        return best.language
    }

    private static func html(_ make: (_ nonce: String) -> String) -> ServerResponse {
        let nonce = Data((0..<18).map { _ in UInt8.random(in: .min ... .max) }).base64EncodedString()
        var headers: HTTPFields = [
            .contentType: "text/html; charset=utf-8", .cacheControl: "no-store", .vary: "Accept-Language",
            .contentSecurityPolicy:
                "default-src 'none'; script-src 'nonce-\(nonce)'; style-src 'nonce-\(nonce)'; img-src data:; "
                + "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            .xContentTypeOptions: "nosniff",
        ]
        for (name, value) in [("Referrer-Policy", "no-referrer"), ("Cross-Origin-Opener-Policy", "same-origin")] {
            if let field = HTTPField.Name(name) { headers[field] = value }
        }
        return ServerResponse(status: 200, headers: headers, body: .bytes(Array(make(nonce).utf8)))
    }
}
