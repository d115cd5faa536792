import Tensors

/// Short invented messages of people with different habits, from a seeded generator, for demonstrations.
public enum SyntheticMessages {
    private struct Persona {
        var openers: [String]
        var subjects: [String]
        var activities: [String]
        var places: [String]
        var closers: [String]
    }

    /// About three hundred characters of one client's messages.
    public static func messages(ofClient index: Int, seed: UInt64) -> [String] {
        var generator = Xoshiro256StarStar(seed: seed &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15)
        let persona = personas[generator.nextIndex(below: personas.count)]
        var messages: [String] = []
        var length = 0
        while length < 280 {
            let message = sentence(persona, &generator)
            messages.append(message)
            length += message.utf8.count
        }
        return messages
    }

    /// Messages of people who take no part in training.
    public static func heldOut(clientCount: Int, seed: UInt64) -> [String] {
        (0..<clientCount).flatMap { messages(ofClient: 1_000_000_000 + $0, seed: seed) }
    }

    private static func sentence(_ persona: Persona, _ generator: inout Xoshiro256StarStar) -> String {
        func pick(_ list: [String]) -> String { list[generator.nextIndex(below: list.count)] }
        let time = pick(times)
        switch generator.nextIndex(below: 6) {
        case 0:
            return
                "\(pick(persona.openers)) i am \(pick(persona.activities)) \(pick(persona.places)), \(pick(persona.closers))"
        case 1: return "\(pick(persona.openers)) can you bring the \(pick(persona.subjects)) \(time)?"
        case 2: return "the \(pick(persona.subjects)) is \(pick(states)) \(time), \(pick(persona.closers))"
        case 3: return "do you want to go \(pick(persona.places)) \(time)?"
        case 4: return "i will be \(pick(persona.activities)) \(time) and then i will call you"
        default:
            return
                "\(pick(persona.openers)) did you see the \(pick(persona.subjects)) \(pick(persona.places))? it was \(pick(states))"
        }
    }

    private static let times = [
        "tomorrow", "tonight", "this morning", "after lunch", "on friday", "next week", "at 7", "later today",
        "before noon",
    ]
    private static let states = [
        "late again", "ready", "almost done", "too cold", "really good", "not working", "much better", "closed", "full",
    ]
    private static let personas = [
        Persona(
            openers: ["hi,", "good morning,", "sorry,", "hello,"],
            subjects: ["train", "bus", "meeting", "ticket", "report"],
            activities: ["waiting", "running late", "standing", "working"],
            places: ["at the station", "in the office", "on the train", "at my desk"],
            closers: ["see you soon.", "talk later.", "thanks!"]
        ),
        Persona(
            openers: ["hey love,", "mum,", "kids,", "dear,"],
            subjects: ["school bag", "dinner", "homework", "birthday cake", "car"],
            activities: ["cooking", "shopping", "cleaning", "picking up the kids"],
            places: ["at home", "to the park", "at school", "at the shop"],
            closers: ["do not forget!", "love you.", "be home by six."]
        ),
        Persona(
            openers: ["yo,", "ok so", "haha,", "dude,"],
            subjects: ["lecture", "exam", "pizza", "party", "game"],
            activities: ["studying", "sleeping", "gaming", "writing my essay"],
            places: ["in the library", "at the gym", "on campus", "at your place"],
            closers: ["so tired...", "cannot wait!", "no worries."]
        ),
        Persona(
            openers: ["hello team,", "please note,", "quick question,", "morning all,"],
            subjects: ["ward", "night shift", "patient list", "new schedule", "medicine"],
            activities: ["on call", "on the late shift", "checking the charts", "covering for anna"],
            places: ["on the ward", "in the clinic", "at the front desk", "in room 12"],
            closers: ["thank you all.", "please confirm.", "many thanks."]
        ),
        Persona(
            openers: ["good day,", "well,", "my friend,", "oh,"],
            subjects: ["garden", "weather", "soup", "newspaper", "apple tree"],
            activities: ["planting roses", "reading", "walking the dog", "baking bread"],
            places: ["in the garden", "by the river", "at the market", "in the kitchen"],
            closers: ["warm regards.", "take care.", "such a lovely day."]
        ),
    ]
}
