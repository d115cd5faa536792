import StrictJSON

/// What two fields of a document say that cannot both be.
///
/// Fields are read first, then those that are left out get their defaults; what does not go together is looked for when all values
/// are there, by functions named `contradictions`.
struct Contradiction: Equatable {
    /// The field that is wrong, from the object whose contradictions these are.
    var path: String
    var detail: String
}

extension [Contradiction] {
    mutating func add(_ path: String, _ detail: String) { append(Contradiction(path: path, detail: detail)) }

    /// The same, seen from the object that holds this one as `field`.
    func under(_ field: String) -> Self { map { Contradiction(path: field + "/" + $0.path, detail: $0.detail) } }

    /// Names them among the problems of a document.
    func report(to fields: FieldReader) {
        for contradiction in self { fields.report(at: contradiction.path, contradiction.detail) }
    }
}
