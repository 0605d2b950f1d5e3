"""What customers of an online shop say, by intent: phrases, and how an intent is mentioned without being meant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intent:
    """One intent.

    Args:
        cores: Templates of whole clauses that ask for it; every one says enough alone.
        about: Noun phrases for "this is not about ...".
        past: What a customer "already" did, or that already happened, about it.
        near: Neighbours it is confused with.
    """

    cores: tuple[str, ...]
    about: tuple[str, ...]
    past: tuple[str, ...]
    near: tuple[str, ...]


_ORDER = "[my order|the order|what i ordered|my purchase|the things i ordered]"
_PARCEL = "[my package|my parcel|my shipment|my delivery|the box]"
_SUB = "[my subscription|my membership|the monthly plan|my plan|the subscription]"
_MONEY = "[my money|the money|my refund|the refund]"
_WANT = (
    "[i want to|i would like to|i need to|i wish to|help me|how do i|how can i|is it possible to|where can i|let me]"
)
_WANT_IT = "[i want|i would like|i need|can i get|could i have|please give me]"
_NEW = "[the {product}|this {product}|my {product}]"

INTENTS: dict[str, Intent] = {
    "track_delivery": Intent(
        (
            f"[where is|where on earth is|tell me where|do you know where] {_PARCEL} [right now|at the moment|today|]",
            f"[track|trace|locate|follow] {_PARCEL} [for me|please|now|]",
            f"{_WANT} [see|check|know|find out] where {_PARCEL} [is|has got to|is travelling]",
            f"has {_PARCEL} [left the warehouse|cleared customs|reached my city|made it to the courier]",
            "[is there|do you have|can i see] a [tracking number|tracking link|tracking code] for [my order|my "
            "parcel|it]",
            f"how far [away|along] is {_PARCEL}",
        ),
        ("tracking a parcel", "where my parcel is"),
        ("tracked the parcel", "looked at the tracking page"),
        ("delivery_late", "change_address", "refund_status"),
    ),
    "delivery_late": Intent(
        (
            f"{_PARCEL} [should have been here|was due|was promised for|was supposed to come|ought to have "
            f"arrived] [last week|days ago|on monday|long ago|yesterday]",
            f"{_PARCEL} is [so late|overdue|way behind schedule|taking forever|badly delayed|much too slow] "
            f"[again|this time|and nobody tells me why|]",
            "i have been waiting [far too long|for weeks|much longer than promised|an eternity] for "
            "[my order|my parcel|the {product}|my delivery] [to come|to arrive|to be delivered|]",
            "[the delivery date|the promised date|the estimated date|the day you gave me] [has passed|is long "
            "gone|went by|is over] and [nothing|no parcel] [came|arrived|showed up|was delivered]",
            f"why is {_PARCEL} [so late|delayed|taking so long|not here yet although it was due] [again|this time|]",
        ),
        ("a late delivery", "the delay"),
        ("complained about the delay", "waited a week longer than promised"),
        ("track_delivery", "missing_item", "shipping_cost"),
    ),
    "change_address": Intent(
        (
            f"{_WANT} [change|correct|update|edit] the [delivery address|shipping address|address] [of|for|on] "
            f"{_ORDER}",
            f"[send|ship|deliver|redirect] {_ORDER} to [another|a different|my new|my office] address",
            "i [typed|entered|gave you|put in] the wrong [street|house number|delivery address|postcode] for [my "
            "order|the parcel]",
            "i [moved|have moved|am moving], so [deliver|send|ship] [my order|the parcel] to [the new place|my "
            "new home] instead",
            f"can {_PARCEL} [go|be sent|be delivered] to [my office|my neighbor|another house] instead of [my "
            f"home|the old address]",
        ),
        ("the delivery address", "changing the address"),
        ("changed the delivery address", "gave you my new address"),
        ("track_delivery", "change_email", "change_order"),
    ),
    "cancel_order": Intent(
        (
            f"{_WANT} [cancel|call off|stop|withdraw|undo] {_ORDER} [before it ships|please|]",
            f"please [cancel|stop|void|call off] {_ORDER} [right away|before it is sent|]",
            f"i [changed my mind|do not want it any more|made a mistake], [cancel|stop|call off] {_ORDER}",
            f"[do not send|do not ship|never ship] {_ORDER}, i [changed my mind|do not need it any more|found it "
            f"elsewhere]",
            f"[is it too late|is there still time] to [cancel|stop|call off] {_ORDER}",
        ),
        ("cancelling an order", "an order cancellation"),
        ("cancelled another order", "cancelled an order last month"),
        ("cancel_subscription", "return_item", "change_order", "delete_account"),
    ),
    "change_order": Intent(
        (
            f"{_WANT} [add|put] [one more {{product}}|another {{product}}|a second {{product}}] to {_ORDER} "
            f"[before it ships|]",
            f"{_WANT} [remove|take] the {{product}} [from|off|out of] {_ORDER} [but keep the rest|and leave the rest]",
            f"{_WANT} [change|edit|modify] the [quantity|colour|size] [in|on] {_ORDER} [before it ships|]",
            "make it [two|three|four] {product}s instead of [one|five] in the order i [just placed|placed "
            "today|made an hour ago]",
            "i [ordered|picked|chose] the wrong [colour|size|quantity], [change it|fix that] before [you ship|it "
            "is packed]",
        ),
        ("changing what is in an order", "editing the order"),
        ("changed the quantity", "edited the order"),
        ("cancel_order", "exchange_item", "change_address"),
    ),
    "request_refund": Intent(
        (
            f"{_WANT_IT} [my money back|a refund|a full refund|to be refunded] [for the {{product}}|please|]",
            "[refund|reimburse] [me|my purchase] [for the {product}|for this order|right away]",
            f"{_WANT} [ask for|request|claim|get] [a refund|my money back] [for {_NEW}|]",
            "i am [unhappy|disappointed|not satisfied] with [it|the {product}] and [want|expect|demand] [my "
            "money back|a refund]",
            "you [should|must|have to] [refund|reimburse] me [for the {product}|for this purchase]",
        ),
        ("getting a refund", "asking for money back"),
        ("asked for a refund", "requested my money back"),
        ("refund_status", "return_item", "exchange_item", "double_charge"),
    ),
    "refund_status": Intent(
        (
            "[where is|what happened to|is there news about|what about] [my refund|the refund you promised|the "
            "money you owe me|the refund i was promised] [now|by now|]",
            "[when will|when does] [my refund|the refund] [arrive|show up|reach my bank|get paid out|land in my "
            "account]",
            "[how long|how many days] until [my refund|the refund] [arrives|shows up|reaches my bank|is paid "
            "out|is in my account]",
            "[my refund|the refund] was [approved|promised|confirmed|announced] [last week|days ago|in may|long "
            "ago] but [nothing came|i got nothing|it is not in my account|my bank shows nothing]",
            f"has {_MONEY} [been sent back|been paid back|been returned to my card|been transferred] [yet|by "
            f"now|already|]",
            "[check|look up|tell me|show me] the [status|progress|state] of [my refund|the refund you "
            "approved|the refund for my {product}]",
        ),
        ("the status of a refund", "when the refund comes"),
        ("got the refund", "received my refund"),
        ("request_refund", "track_delivery", "return_item"),
    ),
    "return_item": Intent(
        (
            f"{_WANT} [send back|return|give back|ship back] {_NEW}",
            f"[how do i|where do i] [print|get|find] a return [label|form|slip] for {_NEW}",
            f"{_NEW} does not [suit me|look right in my room|please my wife], how do i [send it back|return it]",
            "[what is your return policy|how does a return work|what are the rules of a return] for [a "
            "{product}|my {product}]",
            f"can someone [collect|pick up] {_NEW} so that i can [return it|send it back]",
        ),
        ("returning something", "sending something back"),
        ("sent the {product} back", "returned the {product}"),
        ("request_refund", "exchange_item", "warranty_claim"),
    ),
    "exchange_item": Intent(
        (
            f"{_WANT} [exchange|swap|trade] {_NEW} for [another size|a bigger one|a different colour|a smaller one]",
            f"{_NEW} is too [small|big|tight|wide], i [want|need|would like] [the next size|another size|a larger "
            f"one] instead",
            "[can you|could you|will you] [swap|exchange|switch] the {product} [i received|that came] for [a "
            "blue one|a larger one|another model]",
            f"i would rather have [the other colour|another size|a different model] than {_NEW} [i got|you sent], "
            f"can we [swap|exchange]",
        ),
        ("an exchange", "swapping sizes"),
        ("exchanged the {product} once", "swapped the size"),
        ("return_item", "request_refund", "change_order", "wrong_item"),
    ),
    "damaged_item": Intent(
        (
            "[my {product}|the {product}|the new {product}] [arrived|came|was delivered|reached me] "
            "[broken|cracked|scratched|in pieces|smashed|bent] [today|this morning|]",
            "the {product} [in the box|i unpacked|you sent|from my parcel] [has a crack|has a dent|has a broken "
            "corner|is shattered|is bent|leaks] [at the back|on one side|]",
            "the courier [dropped|crushed|ruined|threw] [my parcel|the box|the package] and the {product} "
            "[inside|in it|] is [broken|cracked|dented|smashed]",
            "i [opened|unpacked|took a look into] [the box|my parcel|the package] and the {product} [was "
            "broken|was cracked|was smashed|had scratches all over]",
            "[glass|plastic|paint|a corner] of the {product} [was broken|was chipped|had come off|was crushed] "
            "[when it arrived|on arrival|when i unpacked it]",
        ),
        ("damage in transit", "a broken item"),
        ("reported a broken {product}", "sent you photos of the crack"),
        ("wrong_item", "missing_item", "warranty_claim", "return_item"),
    ),
    "wrong_item": Intent(
        (
            "i [got|received|was sent|unpacked] a {other} [instead of|rather than|in place of] [the {product}|a "
            "{product}|my {product}]",
            "you [sent|shipped|delivered|packed] [the wrong {product}|somebody else's order|something i never "
            "ordered|a {other} by mistake] [this time|to me|]",
            "[this is not|that is not|it is not] the {product} i [ordered|asked for|paid for|picked], it is a {other}",
            "i [ordered|paid for|asked for] a {product} but [the box held|you sent|i unpacked|i was given] a {other}",
            "the [colour|model|size|brand] [you sent|i received|in the box|that came] is not the one i "
            "[ordered|picked|paid for|asked for]",
        ),
        ("receiving the wrong thing", "a mixed up order"),
        ("got the wrong {product} once", "told you it was the wrong model"),
        ("damaged_item", "missing_item", "exchange_item"),
    ),
    "missing_item": Intent(
        (
            "the {product} [is missing from|was not in|is not in|is absent from] [my parcel|the box|the "
            "package|the delivery] [today|]",
            "[only part|only half|just one piece|not everything] of my order [was in the box|came|arrived], the "
            "{product} is [missing|not there|absent]",
            "i ordered [two|three|four] {product}s but [only one was in the box|one is missing|the parcel had "
            "only one|just one came]",
            "[the screws|the cable|the manual|the lid|a part|one leg] [for|of] the {product} [is missing|was not "
            "included|was not in the box|is not there]",
            "the [box|parcel|package] [was empty|had nothing in it|was half empty|was incomplete], there is no "
            "{product} [inside|in it|at all]",
        ),
        ("a missing item", "an incomplete parcel"),
        ("reported a missing part", "told you that a piece was missing"),
        ("wrong_item", "damaged_item", "delivery_late"),
    ),
    "cancel_subscription": Intent(
        (
            f"{_WANT} [cancel|end|terminate|stop] {_SUB}",
            f"please [cancel|end|terminate|stop] {_SUB} [today|at the end of the month|]",
            f"[do not renew|never renew|stop renewing] {_SUB}",
            f"i no longer [use|need|want] {_SUB}, [end it|cancel it|shut it off]",
            f"[how do i get|get me] out of {_SUB}",
        ),
        ("ending a subscription", "cancelling the membership"),
        ("cancelled a different plan", "ended my trial"),
        ("pause_subscription", "downgrade_plan", "cancel_order", "delete_account"),
    ),
    "pause_subscription": Intent(
        (
            f"{_WANT} [pause|freeze|suspend|put on hold] {_SUB} [for a month|for the summer|while i travel|for a "
            f"while]",
            f"[pause|freeze|suspend] {_SUB} [until may|for two months|while i am abroad|until i am back]",
            "[skip|leave out] [next month|the next two months|one month] of my [subscription|membership|plan]",
            f"can {_SUB} [be paused|take a break|rest] [for a few weeks|until autumn|while i am away]",
        ),
        ("pausing the subscription", "a break from the plan"),
        ("paused it last summer", "froze the membership"),
        ("cancel_subscription", "downgrade_plan", "upgrade_plan"),
    ),
    "upgrade_plan": Intent(
        (
            f"{_WANT} [upgrade|move up|switch up|go up] to the [premium|family|business|gold] [plan|tier|membership]",
            "i [want|need] [more features|more storage|more users|extra seats] than [the basic plan|my plan|my "
            "membership] [has|allows|gives me|offers]",
            "[put|move|set] me [on|up to] the [next higher|biggest|most complete|better] [plan|tier|membership]",
            "what does it [cost|take] to [upgrade|go from basic to premium|move up a tier|get the bigger plan] "
            "[today|in the middle of the month|]",
        ),
        ("upgrading", "a bigger plan"),
        ("upgraded last year", "looked at the premium plan"),
        ("downgrade_plan", "pause_subscription", "apply_coupon"),
    ),
    "downgrade_plan": Intent(
        (
            f"{_WANT} [downgrade|go down|switch down|move down] to [the basic|the cheapest|the free|a smaller] "
            f"[plan|tier|membership]",
            "[premium|the gold plan|the family plan|the business tier] is [too expensive|too much|more than i "
            "need], [put|move] me on [a smaller|the cheaper|the basic] one",
            "i [want|need] [fewer features|a cheaper tier|less storage] but [want to stay|not to leave|keep my "
            "membership]",
            "[put|move] me [back|down] [to|on] the [basic|free|starter|cheapest] [plan|tier]",
        ),
        ("a cheaper plan", "downgrading"),
        ("downgraded once", "looked at the cheaper plan"),
        ("upgrade_plan", "cancel_subscription", "pause_subscription"),
    ),
    "update_payment": Intent(
        (
            f"{_WANT} [change|update|replace] [my card|my credit card|my payment method|my bank details|the card "
            f"on file]",
            "my [card|credit card] [expired|was replaced|will expire soon], [where do i|how do i] "
            "[enter|add|save] the new one",
            f"{_WANT} pay [by invoice|with another card|with my bank account|by debit card] [from now on|in the "
            f"future]",
            f"{_WANT} [add|save|store] a [second|new|different] [card|payment method] [to|in] my account",
            "[remove|delete] the old card [from my account|you have on file] and [use|save] the new one",
        ),
        ("changing my card", "the payment method"),
        ("updated my card", "entered a new card"),
        ("payment_failed", "double_charge", "change_email"),
    ),
    "payment_failed": Intent(
        (
            "my [payment|card|credit card|transfer] [was declined|was rejected|does not go through|is refused] "
            "[at checkout|again|by your page|every time|]",
            "[the checkout|the payment page|your payment form] [shows an error|keeps failing|freezes|crashes] "
            "when i [pay|press pay|confirm the payment|enter my card]",
            "i [cannot|am unable to|try to but cannot|still cannot] [pay|complete the payment|finish paying] "
            "[for my order|for the {product}|at checkout|]",
            "why [was|is] my [payment|card|credit card] [declined|rejected|not accepted|refused] [all the "
            "time|again|at checkout|]",
        ),
        ("a failed payment", "my card being declined"),
        ("tried another card", "saw my card declined"),
        ("update_payment", "double_charge", "coupon_problem"),
    ),
    "double_charge": Intent(
        (
            "i was [charged|billed|debited] [twice|two times|double|a second time] for [my order|the same "
            "order|one {product}|one purchase]",
            "[my bank statement|my card|my account|my bank] shows [two charges|the same charge twice|a duplicate "
            "charge|two withdrawals] [from you|for one order|from your shop]",
            "you [took|charged|debited|withdrew] [the amount|the money|the price of the {product}] [twice|two "
            "times|more than once]",
            "why are there [two|three] [identical charges|charges for one order|withdrawals|equal amounts] on my "
            "[card|statement|bank account]",
        ),
        ("being charged twice", "a duplicate charge"),
        ("noticed a duplicate charge", "was charged twice once before"),
        ("payment_failed", "request_refund", "get_invoice"),
    ),
    "get_invoice": Intent(
        (
            f"{_WANT_IT} [an invoice|a receipt|a bill|a copy of the invoice] for [my order|the {{product}}|my "
            f"purchase]",
            "[send|email|mail] me [the invoice|a receipt|the bill] for [my order|the {product}|my last purchase]",
            f"{_WANT} [download|print|find] [the invoice|my receipt|the bill]",
            "my [accountant|boss|company|tax office] needs [an invoice|a proper receipt|a bill] for [this "
            "order|the {product}]",
        ),
        ("an invoice", "a receipt"),
        ("downloaded the invoice", "received the receipt"),
        ("double_charge", "order_confirmation", "update_payment"),
    ),
    "order_confirmation": Intent(
        (
            "i [never got|did not receive|am missing|am still without] [a confirmation|the confirmation email|an "
            "order number|an order confirmation] [for my order|after i ordered|for the {product}|]",
            "[did|has] my order [go through|get placed|arrive in your system|been registered], i [got no "
            "email|saw no confirmation|have no order number]",
            "[please confirm|can you confirm|could you confirm|tell me] that [my order was placed|you received "
            "my order|my order went through|my order is in your system]",
            "[resend|send again|send me|email me] the [order confirmation|confirmation email|confirmation "
            "message|order number] [please|once more|]",
            "i [ordered|bought] a {product} [today|an hour ago|last night] but [no confirmation came|there is no "
            "confirmation|my mailbox has no confirmation]",
        ),
        ("the confirmation email", "confirming an order"),
        ("got the confirmation", "read the confirmation email"),
        ("get_invoice", "payment_failed", "track_delivery"),
    ),
    "apply_coupon": Intent(
        (
            f"{_WANT} [use|redeem|apply|enter] [a coupon|a voucher|my discount code|a promo code|a gift card]",
            "where [do i|can i|should i] [enter|type|put] [my coupon|the promo code|my voucher|the gift card number]",
            "[do you have|are there|is there] [any discount codes|a coupon for new customers|a student "
            "discount|a promo code] [right now|for the {product}|]",
            "i [have|got|was given] [a coupon|a voucher|a gift card], how do i [use|redeem] it",
        ),
        ("using a coupon", "discount codes"),
        ("used my coupon", "redeemed a voucher"),
        ("coupon_problem", "shipping_cost", "upgrade_plan"),
    ),
    "coupon_problem": Intent(
        (
            "[my coupon|the discount code|my voucher|the promo code] [does not work|is rejected|gives an "
            "error|says invalid|fails] [at checkout|on the {product}|again|]",
            "i [typed|entered|tried|used] [the coupon|my voucher|the promo code|my discount code] but the "
            "[price|total|amount] [did not change|stayed the same|is still full]",
            "why is [my coupon|the discount code|my voucher|the promo code] [not accepted|expired "
            "already|invalid|refused] [for the {product}|at checkout|]",
            "[the discount|my voucher|the promo|my coupon] was not [taken off|applied|subtracted|counted] [at "
            "checkout|from the total|from my bill|on my order]",
        ),
        ("a broken coupon", "an invalid voucher"),
        ("tried the coupon", "saw the code rejected"),
        ("apply_coupon", "payment_failed", "double_charge"),
    ),
    "reset_password": Intent(
        (
            f"{_WANT} [reset|change|recover|renew] my password [today|for the app|]",
            "i [forgot|lost|cannot remember|do not know] my [password|login password] [for the app|for this "
            "shop|again|]",
            "[send|email|give] me a [password reset|new password|reset] link [please|again|]",
            "the [password reset|reset] [email|link|message] [never came|does not work|has expired|is broken]",
            "my [old|current|usual] password is [gone from my head|wrong|not right|forgotten], [give me|let me "
            "choose|i need] a new one",
        ),
        ("a password", "resetting a password"),
        ("reset my password", "chose a new password"),
        ("account_locked", "change_email", "delete_account"),
    ),
    "account_locked": Intent(
        (
            "my [account|login|profile] [is|was|has been|got] [locked|blocked|suspended|disabled] [after too "
            "many tries|for no reason|since yesterday|overnight|]",
            f"{_WANT} [unlock|unblock|reactivate|unfreeze] my [account|login|profile]",
            "it says [my account is blocked|too many attempts|account suspended|login disabled] [when i log "
            "in|when i sign in|in the app|]",
            "why did you [lock|block|suspend|disable] my [account|login|profile] [today|without warning|]",
        ),
        ("a blocked account", "unlocking my account"),
        ("had my account unlocked", "was blocked once before"),
        ("reset_password", "delete_account", "payment_failed"),
    ),
    "change_email": Intent(
        (
            f"{_WANT} [change|update|replace] the email [address|] [of my account|i log in with|on my profile|you "
            f"have for me]",
            "i [have|use|got] a new email address, [update|change] [my account|my profile|your records]",
            "[use|put|save] my [work|new|other|private] email [on|for] my account [instead|from now on]",
            "my old [mailbox|email address|email] [is closed|no longer exists|was hacked], [put|use] the new one "
            "[on my account|for my login]",
        ),
        ("my email address", "changing the email"),
        ("changed my email", "updated my profile"),
        ("change_address", "reset_password", "update_payment"),
    ),
    "delete_account": Intent(
        (
            f"{_WANT} [delete|close|erase|remove] my [account|profile|customer account] [for good|completely|]",
            "[delete|erase|wipe] [all my data|everything you store about me|my personal data] [and close my account|]",
            "please [close|delete|remove] my [account|profile] [forever|permanently|today]",
            "i [never want to shop here again|am leaving you for good], [delete|erase|close] my account",
        ),
        ("deleting my account", "closing the account"),
        ("deleted an old account", "closed my second account"),
        ("cancel_subscription", "account_locked", "change_email"),
    ),
    "talk_to_human": Intent(
        (
            f"{_WANT} [talk to|speak with|chat with|reach] [a human|a real person|an agent|somebody from support]",
            "[connect|transfer|put] me [through|] to [a human|an agent|your manager|a real person]",
            "[stop this bot|no more robots|enough of this machine|i am tired of this bot], [get me|i want|give "
            "me] [a human|a person|an agent]",
            "is there [a person|anyone real|somebody|a manager] i can [call|talk to|speak to|write to] [today|now|]",
            "what is the [phone number|number|hotline] of your [support team|customer service|help desk]",
        ),
        ("speaking to an agent", "talking to a person"),
        ("talked to an agent", "called your hotline"),
        ("opening_hours", "delete_account", "order_confirmation"),
    ),
    "opening_hours": Intent(
        (
            "[when|what time|at what time] does your [store|shop|showroom|pickup point] [open|close] [today|on "
            "sunday|tomorrow|on holidays|]",
            "[what are|tell me|where do i find|send me] the opening [hours|times] of [your store|the shop|the "
            "showroom|the pickup point]",
            "is [the store|your shop|the showroom|the pickup point] [open|closed] [on sunday|late tonight|on "
            "public holidays|after six|tomorrow]",
            "until [what hour|when|what time] can i [visit|come to|drop by|walk into] [your store|the shop|the "
            "showroom] [today|on saturday|]",
        ),
        ("opening hours", "when the shop opens"),
        ("went to your store", "visited the showroom"),
        ("talk_to_human", "product_availability", "shipping_cost"),
    ),
    "product_availability": Intent(
        (
            "is the {product} [in stock|available|sold out|still for sale] [in blue|in my size|at the moment|in red|]",
            "[when will|when does|how soon will] the {product} [be back in stock|come back|be available again|be "
            "restocked] [in my size|in blue|]",
            "do you [sell|carry|still have|stock] [a {product}|the {product} in green|a larger {product}|any "
            "{product}] [right now|in your shop|]",
            "[let me know|tell me|notify me|email me] when the {product} [is back|is available again|is in "
            "stock|can be ordered] [in black|in large|]",
        ),
        ("what is in stock", "availability"),
        ("checked the stock", "saw that it was sold out"),
        ("opening_hours", "shipping_cost", "change_order"),
    ),
    "warranty_claim": Intent(
        (
            "my {product} [stopped working|died|broke down|gave up] after [a year|six months|a few months], is "
            "it [under warranty|covered]",
            f"{_WANT} [use|claim|make use of] the [warranty|guarantee] [of|on|for] my {{product}}",
            "[how long is|what is covered by] the [warranty|guarantee] [of|on|for] [the {product}|my {product}]",
            "will you [repair|fix|service] my {product} [under warranty|under the guarantee|within the guarantee]",
        ),
        ("the warranty", "a guarantee"),
        ("registered the warranty", "had it repaired under warranty"),
        ("damaged_item", "return_item", "product_availability"),
    ),
    "shipping_cost": Intent(
        (
            "how much [is|does it cost for|do you charge for] [shipping|delivery|express delivery|postage] [to "
            "norway|to my country|for a {product}|to an island|]",
            "[is there|do you offer|do i get] [free shipping|free delivery|shipping for free] [on a "
            "{product}|above some amount|for members|to canada|]",
            "what are the [shipping costs|delivery fees|postage rates|shipping fees] [to canada|for a heavy "
            "{product}|for two parcels|for express|]",
            "why is [shipping|delivery|postage|express delivery] [so expensive|more than the {product} "
            "itself|that pricey|not free] [to my town|now|]",
        ),
        ("shipping costs", "delivery fees"),
        ("paid for express shipping", "saw the delivery fee"),
        ("apply_coupon", "delivery_late", "track_delivery"),
    ),
}
