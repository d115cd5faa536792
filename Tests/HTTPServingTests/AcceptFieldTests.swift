import HTTPServing
import Testing

struct AcceptFieldTests {
    @Test(
        arguments: [
            // The field, and which of JSON, CSV and HTML it takes.
            (nil, "jch"), ("", "jch"), ("*/*", "jch"), ("application/json", "j"),
            ("APPLICATION/JSON; charset=utf-8", "j"),
            ("text/*", "ch"), ("text/*;q=0.5, text/html;q=0", "c"), ("application/json;q=0, */*;q=0.1", "ch"),
            ("image/png", ""), ("image/png, */*;q=0", ""), ("application/json ; q=0.0", ""),
            // Members that are no ranges do not count; where none is left, nothing was said.
            ("json", "jch"), ("*/json", "jch"), ("text/csv;q=2", "jch"), ("image/png, text /html", ""), (", ,", "jch"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "jch"),
        ] as [(String?, String)]
    )
    func takesWhatItNames(_ field: String?, _ expected: String) {
        let accept = AcceptField(field)
        var taken = ""
        for (type, letter) in [("application/json", "j"), ("text/csv; charset=utf-8", "c"), ("text/html", "h")]
        where accept.takes(type) { taken += letter }
        #expect(taken == expected)
    }

    @Test(
        arguments: [
            (nil, "application/json"), ("*/*", "application/json"), ("text/csv", "text/csv"),
            ("text/csv, */*", "text/csv"), ("text/csv;q=0.5, application/json;q=0.4", "text/csv"),
            ("text/csv;q=0.5, application/json", "application/json"), ("text/html", nil),
            ("text/csv, application/json", "application/json"),
        ] as [(String?, String?)]
    )
    func likesOneBest(_ field: String?, _ expected: String?) {
        #expect(AcceptField(field).best(of: ["application/json", "text/csv"]) == expected)
    }
}
