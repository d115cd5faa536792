import Foundation
import Yams

/// A line for one call that runs in a shell.
///
/// What differs from server to server stands in shell variables: `$MARTLET_URL`, `$MARTLET_TOKEN`, and `$RUN` for `{run}`
/// and so on.
struct CurlExample {
    let command: String

    init(operation: ReferenceOperation, document: ReferenceDocument) {
        if let written = operation.node["x-curl"]?.string {
            command = written.trimmingCharacters(in: .whitespacesAndNewlines)
            return
        }
        var words = ["curl -sS"]
        if document.pairs(operation.node["responses"]).contains(where: { _, response in
            document.pairs(document.resolved(response)["content"]).contains { $0.0 == "text/event-stream" }
        }) {
            words[0] = "curl -sSN"
        }
        let request = operation.node["requestBody"].map(document.resolved)
        let body = Self.body(request, operation, document)
        if operation.method != (body == nil ? "GET" : "POST") { words.append("-X \(operation.method)") }
        if let token = Self.tokenName(operation) { words.append("-H \"Authorization: Bearer $\(token)\"") }
        words += operation.parameters.filter { $0["in"]?.string == "header" && $0["required"]?.bool == true }.map {
            "-H \"\($0["name"]?.string ?? ""): $\(Self.variable($0["name"]?.string ?? ""))\""
        }
        words += body ?? []
        var path = operation.path
        while let start = path.firstIndex(of: "{"), let end = path[start...].firstIndex(of: "}") {
            path.replaceSubrange(start...end, with: "$" + Self.variable(String(path[path.index(after: start)..<end])))
        }
        words.append("\"$MARTLET_URL\(path)\"")
        command = words.joined(separator: " \\\n    ")
    }

    private static func tokenName(_ operation: ReferenceOperation) -> String? {
        if let security = operation.node["security"]?.array(), security.isEmpty { return nil }
        if operation.id == "registerClient" { return "ENROLLMENT_TOKEN" }
        return operation.tag == "participation" ? "CLIENT_TOKEN" : "MARTLET_TOKEN"
    }

    private static func variable(_ name: String) -> String {
        name.uppercased().replacing("-", with: "_")
    }

    private static func body(
        _ request: Node?,
        _ operation: ReferenceOperation,
        _ document: ReferenceDocument
    ) -> [String]? {
        let content = document.pairs(request?["content"])
        guard let (type, media) = content.first else { return nil }
        guard type.hasSuffix("json") else {
            let file = operation.path.contains("/update") ? "update.safetensors" : "model.safetensors"
            return ["-H \"Content-Type: \(type)\"", "--data-binary @\(file)"]
        }
        let example = media["example"] ?? media["schema"].map { sample(document.merged($0), document, depth: 0) }
        let text = example.map { json($0) } ?? "{}"
        return ["-H \"Content-Type: \(type)\"", "-d '\(text.replacing("'", with: "'\\''"))'"]
    }

    /// A value that fits a schema: its example, its default, or the simplest one; objects with what they require.
    private static func sample(_ node: Node, _ document: ReferenceDocument, depth: Int) -> Node {
        if let example = node["example"] ?? node["default"] { return example }
        if let first = node["enum"]?.array().first { return first }
        if let properties = node["properties"], depth < 6 {
            let required = Set(node["required"]?.array().compactMap(\.string) ?? [])
            return Node(
                document.pairs(properties).filter { required.contains($0.0) }.map { name, field in
                    (Node(name), sample(document.merged(field), document, depth: depth + 1))
                }
            )
        }
        switch node["type"]?.string {
        case "integer", "number": return Node(node["minimum"]?.string ?? "1", Tag(.int))
        case "boolean": return Node("true", Tag(.bool))
        case "array": return Node([Node]())
        case "object": return Node([(Node, Node)]())
        default: return Node("text", Tag(.str))
        }
    }

    private static func json(_ node: Node) -> String {
        switch node {
        case .mapping(let pairs):
            return "{" + pairs.map { "\(quoted($0.key.string ?? "")): \(json($0.value))" }.joined(separator: ", ") + "}"
        case .sequence(let items): return "[" + items.map(json).joined(separator: ", ") + "]"
        default:
            if node.tag == Tag(.str) || (node.bool == nil && node.float == nil && node.null == nil) {
                return quoted(node.string ?? "")
            }
            return node.null != nil ? "null" : node.scalar?.string ?? "null"
        }
    }

    private static func quoted(_ text: String) -> String {
        "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n") + "\""
    }
}
