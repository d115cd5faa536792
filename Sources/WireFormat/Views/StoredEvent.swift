package import StrictJSON

/// An event in a page of `GET /v1/events`; `data` is an object, as in the stream.
package struct StoredEvent: Codable, Sendable {
    package var id: Int
    package var at: String
    package var type: String
    package var run: String?
    package var population: String?
    package var data: JSONValue

    package init(id: Int, at: String, type: String, run: String?, population: String?, data: JSONValue) {
        self.id = id
        self.at = at
        self.type = type
        self.run = run
        self.population = population
        self.data = data
    }
}
