/// One thing that a server can be asked: method, path, who may ask, and what goes to and fro.
///
/// `Body` and `Answer` are the JSON documents of a request and its answer; ``NoDocument`` stands for none, ``Octets`` for
/// what is no JSON. The server registers its handlers by endpoints, and callers build their paths from them, so that a path
/// and a role are written down once, in ``Endpoints``.
package struct Endpoint<Caller: CallerKind, Body, Answer, each Parameter: PathParameter>: Sendable {
    /// The part that is the same for all endpoints.
    package let row: EndpointRow

    /// Writes an endpoint down.
    ///
    /// - Parameters:
    ///   - method: The method.
    ///   - template: The path, with a placeholder for each parameter, in order.
    ///   - access: Who may ask.
    init(_ method: RequestMethod, _ template: String, _ access: EndpointAccess<Caller>) {
        row = EndpointRow(method: method, template: template, access: access.rule)
        var placeholders: [String] = []
        repeat placeholders.append((each Parameter).placeholder)
        precondition(row.placeholders == placeholders, "the placeholders of \(template) are not its parameters")
    }

    package var template: String { row.template }

    /// A request to this endpoint.
    package func callAsFunction(_ parameter: repeat each Parameter) -> RequestTarget<Body, Answer> {
        var segments: [String] = []
        repeat segments.append((each parameter).segment)
        return RequestTarget(method: row.method, path: row.path(segments))
    }

    /// The parameters in a path that the template matches.
    ///
    /// - Parameter segments: All segments of the path, percent-decoded; as many as the template's.
    /// - Returns: One value for each placeholder.
    /// - Throws: ``PathParameterError`` for a segment that can name nothing.
    package func parameters(in segments: [String]) throws -> (repeat each Parameter) {
        var values = row.values(in: segments)[...]
        return (repeat try Self.next(of: &values, as: (each Parameter).self))
    }

    private static func next<Value: PathParameter>(
        of values: inout ArraySlice<String>,
        as type: Value.Type
    ) throws -> Value {
        guard let segment = values.popFirst() else { throw PathParameterError(detail: "the path is too short") }
        return try Value(segment: segment)
    }
}

/// Stands for a body or an answer that an endpoint does not have.
package enum NoDocument: Sendable {}

/// Stands for a body or an answer that is no JSON, such as a safetensors file.
package enum Octets: Sendable {}

/// An endpoint without its types.
package struct EndpointRow: Hashable, Sendable {
    package let method: RequestMethod
    /// The path, parameters in braces.
    package let template: String
    package let access: AccessRule
    /// The template's segments.
    private let segments: [String]

    init(method: RequestMethod, template: String, access: AccessRule) {
        self.method = method
        self.template = template
        self.access = access
        segments = template.split(separator: "/").map(String.init)
    }

    /// What stands in braces, in order.
    package var placeholders: [String] {
        segments.filter(Self.isPlaceholder).map { String($0.dropFirst().dropLast()) }
    }

    /// How many segments a path has that the template matches.
    package var segmentCount: Int { segments.count }

    /// Whether a path's segments are those of the template, parameters aside.
    package func matches(_ path: [String]) -> Bool {
        path.count == segments.count && zip(segments, path).allSatisfy { Self.isPlaceholder($0) || $0 == $1 }
    }

    /// The template with these segments in the place of its placeholders.
    package func path(_ values: [String]) -> String {
        var values = values[...]
        let filled = segments.map { Self.isPlaceholder($0) ? PathEncoding.segment(values.removeFirst()) : $0 }
        return "/" + filled.joined(separator: "/")
    }

    /// The parameter of a kind in a path that the template matches.
    ///
    /// - Throws: ``PathParameterError`` where the template has no such placeholder, or its segment can name nothing.
    package func parameter<Value: PathParameter>(_ type: Value.Type, in path: [String]) throws -> Value {
        guard let segment = zip(segments, path).first(where: { $0.0 == "{\(Value.placeholder)}" })?.1 else {
            throw PathParameterError(detail: "\(template) names no \(Value.placeholder)")
        }
        return try Value(segment: segment)
    }

    /// What stands in a path's segments at the places of the placeholders.
    func values(in path: [String]) -> [String] {
        zip(segments, path).filter { Self.isPlaceholder($0.0) }.map(\.1)
    }

    private static func isPlaceholder(_ segment: String) -> Bool { segment.hasPrefix("{") }
}
