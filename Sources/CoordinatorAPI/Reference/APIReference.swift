import Foundation
import WireFormat
import Yams

/// The API's description as a page for people: every call with its fields, answers and a `curl` line that can be copied.
struct APIReference: Sendable {
    static let shared = APIReference(description: EmbeddedText.openapiYaml)

    /// The list of calls, as HTML.
    private(set) var contents = ""
    /// The calls themselves, as HTML.
    private(set) var body = ""

    init(description: String) {
        guard let root = try? Yams.compose(yaml: description) else {
            let path = Endpoints.description().path
            body = "<p>The description cannot be read; it is at <a href=\"\(path)\">\(path)</a>.</p>"
            return
        }
        let document = ReferenceDocument(root: root)
        body = "<p>\(HTML.prose(root["info"]?["description"]?.string ?? ""))</p>\n"
        if let problem = root["components"]?["schemas"]?["Problem"] {
            body += "<details><summary>The fields of a problem document</summary>"
            body += "\(schema(problem, document, depth: 0))</details>\n"
            let codes = document.pairs(root["components"]?["schemas"]?["ProblemCode"]?["x-codes"])
            body +=
                "<details><summary>The \(codes.count) codes of problem documents</summary>\(Self.table(codes))</details>\n"
        }
        for tag in document.tags {
            let operations = document.operations.filter { $0.tag == tag }
            guard !operations.isEmpty else { continue }
            contents += "<li><a href=\"#tag-\(HTML.escape(tag))\">\(HTML.escape(tag))</a><ul>\n"
            body += "<section aria-labelledby=\"tag-\(HTML.escape(tag))\"><h2 id=\"tag-\(HTML.escape(tag))\">"
            body += "\(HTML.escape(tag))</h2>\n"
            for operation in operations {
                contents += "<li><a href=\"#\(operation.id)\"><code class=\"\(operation.method.lowercased())\">"
                contents += "\(operation.method)</code> \(HTML.escape(operation.path))</a></li>\n"
                body += article(operation, document)
            }
            contents += "</ul></li>\n"
            body += "</section>\n"
        }
    }

    private static func table(_ codes: [(String, Node)]) -> String {
        let rows = codes.map { code, node in
            let statuses = node["status"]?.sequence?.compactMap(\.int).map(String.init).joined(separator: ", ") ?? ""
            return "<dt><code>\(HTML.escape(code))</code> (\(statuses))</dt>"
                + "<dd>\(HTML.prose(node["means"]?.string ?? ""))</dd>\n"
        }
        return "<dl class=\"answers\">\n\(rows.joined())</dl>"
    }

    private func article(_ operation: ReferenceOperation, _ document: ReferenceDocument) -> String {
        var html = "<article id=\"\(operation.id)\"><h3><code class=\"\(operation.method.lowercased())\">"
        html += "\(operation.method)</code> <code>\(HTML.escape(operation.path))</code></h3>\n"
        html += "<p>\(HTML.prose(operation.node["summary"]?.string ?? ""))</p>\n"
        if let text = operation.node["description"]?.string { html += "<p>\(HTML.prose(text))</p>\n" }
        html += parameters(operation, document)
        if let request = operation.node["requestBody"].map(document.resolved) {
            for (type, media) in document.pairs(request["content"]) {
                html += "<h4>Body: <code>\(HTML.escape(type))</code></h4>\n"
                html += media["schema"].map { schema($0, document, depth: 0) } ?? ""
            }
        }
        html += "<h4>Answers</h4><dl class=\"answers\">\n"
        for (status, response) in document.pairs(operation.node["responses"]) {
            let response = document.resolved(response)
            html += "<dt><code>\(HTML.escape(status == "default" ? "else" : status))</code></dt><dd>"
            html += HTML.prose(response["description"]?.string ?? "")
            for (type, media) in document.pairs(response["content"]) where type != "application/problem+json" {
                let fields = media["schema"].map { schema($0, document, depth: 0) } ?? ""
                html += " <details><summary><code>\(HTML.escape(type))</code></summary>\(fields)</details>"
            }
            html += "</dd>\n"
        }
        let example = CurlExample(operation: operation, document: document)
        html += "</dl><h4>Try it</h4><div class=\"example\"><button type=\"button\" class=\"copy\">Copy</button>"
        html += "<pre tabindex=\"0\"><code class=\"curl\" data-operation=\"\(operation.id)\">"
        return html + HTML.escape(example.command) + "</code></pre></div></article>\n"
    }

    private func parameters(_ operation: ReferenceOperation, _ document: ReferenceDocument) -> String {
        guard !operation.parameters.isEmpty else { return "" }
        var html = "<table><caption>Parameters</caption><thead><tr><th scope=\"col\">Name</th>"
        for title in ["In", "Type", "Meaning"] { html += "<th scope=\"col\">\(title)</th>" }
        html += "</tr></thead><tbody>\n"
        for parameter in operation.parameters {
            let required = parameter["required"]?.bool == true ? "" : " <i>optional</i>"
            html += "<tr><th scope=\"row\"><code>\(HTML.escape(parameter["name"]?.string ?? ""))</code>\(required)</th>"
            html += "<td>\(HTML.escape(parameter["in"]?.string ?? ""))</td>"
            html += "<td>\(HTML.escape(parameter["schema"].map { document.typeName($0) } ?? ""))</td>"
            html += "<td>\(HTML.prose(parameter["description"]?.string ?? ""))</td></tr>\n"
        }
        return html + "</tbody></table>\n"
    }

    /// The fields of an object, those of objects inside it below them.
    private func schema(_ node: Node, _ document: ReferenceDocument, depth: Int) -> String {
        let node = document.merged(node)
        if let items = node["items"] { return "<p>A list of:</p>" + schema(items, document, depth: depth + 1) }
        let required = Set(node["required"]?.array().compactMap(\.string) ?? [])
        let fields = document.pairs(node["properties"])
        guard !fields.isEmpty, depth < 8 else { return "<p>\(HTML.escape(document.typeName(node)))</p>" }
        var html = "<dl class=\"fields\">\n"
        for (name, field) in fields {
            let resolved = document.merged(field)
            html += "<dt><code>\(HTML.escape(name))</code> <span>\(HTML.escape(document.typeName(field)))"
            html += "\(required.contains(name) ? ", required" : "")</span></dt><dd>"
            html += HTML.prose(resolved["description"]?.string ?? "")
            let inner = document.merged(resolved["items"] ?? resolved)
            if inner["properties"] != nil { html += schema(inner, document, depth: depth + 1) }
            html += "</dd>\n"
        }
        return html + "</dl>\n"
    }
}

/// Text as HTML.
enum HTML {
    static func escape(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;")
    }

    /// Escaped text in which words between backquotes are code.
    static func prose(_ text: String) -> String {
        let parts = escape(text).split(separator: "`", omittingEmptySubsequences: false)
        guard parts.count % 2 == 1 else { return escape(text) }
        return parts.enumerated().map { index, part in index % 2 == 1 ? "<code>\(part)</code>" : String(part) }.joined()
    }
}
