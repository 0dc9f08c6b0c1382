"""A shop's day with Segue, over the typed functions of segue.py: python docs/examples/shop.py http://localhost:8000"""

import sys

import httpx
from segue import (
    EventBody,
    RecommendAnswer,
    Refused,
    delete_user,
    get_user,
    post_events,
    post_recommend,
    post_users_merge,
    put_item,
)


def visit(client: httpx.Client) -> RecommendAnswer:
    """A guest looks around, signs in, is shown a list and clicks in it."""
    put_item(client, "i7", {"attributes": {"title": "Gloves", "price": 19.5, "colours": ["red", "blue"]}})
    seen: list[EventBody] = [
        {"session_id": "s1", "item_id": item_id, "event_id": f"s1-{number}"}
        for number, item_id in enumerate(["i3", "i7", "i8"])
    ]
    stored = post_events(client, {"events": seen})  # sent again after a failure, nothing changes
    print(f"{stored['accepted']} events stored, {stored['duplicates']} known already")

    post_users_merge(client, {"from": {"session_id": "s1"}, "to": {"user_id": "ann"}})
    answer = post_recommend(
        client,
        {
            "user_id": "ann",
            "k": 5,
            "filter": {"not": {"field": "item_id", "op": "in", "value": ["i1", "i2"]}},
            "include": ["attributes"],
        },
    )
    for item in answer["items"]:
        print(f"{item['rank']:2}  {item['item_id']}  {item.get('attributes')}")

    if answer["items"]:  # what was shown is tied to what was chosen
        chosen = answer["items"][0]
        post_events(
            client,
            {
                "user_id": "ann",
                "item_id": chosen["item_id"],
                "recommendation_id": answer["recommendation_id"],
                "position": chosen["rank"],
            },
        )
    return answer


def main(url: str) -> None:
    with httpx.Client(base_url=url, timeout=2) as client:
        visit(client)
        print(f"{get_user(client, 'ann')['history_length']} events are stored of Ann")
        try:
            post_recommend(client, {"user_id": "ann", "filter": {"field": "pirce", "op": "lt", "value": 20}})
        except Refused as refused:
            print(f"a misspelt field is refused: {refused.problem['code']}")
        delete_user(client, "ann")


if __name__ == "__main__":
    main(sys.argv[1])
